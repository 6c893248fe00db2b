"""
HelmChart and HelmChartConfig become Helm releases.

What a chart deploys is not interpreted here; the Helm library does that.
"""
