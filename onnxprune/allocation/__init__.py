"""Choose how many units every group loses so that all budgets hold."""
