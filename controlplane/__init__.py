"""
The control plane: API server, store, controllers and scheduler in one asyncio process.

Nothing here knows of containers, network namespaces or the machine it runs on:
that is :mod:`node`. Programs meet it through the Kubernetes API alone.
"""
