"""What holds the chart to its README, its schema, Kubernetes' schemas and common advice."""
