"""View a weighted node as y = xW + b, whatever the operator."""
