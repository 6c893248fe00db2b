"""Network policy: what NetworkPolicies allow becomes rules in this node's kernel."""
