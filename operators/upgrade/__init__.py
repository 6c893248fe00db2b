"""UpgradePlan: which node changes to which version, when, in which order, and on what terms."""
