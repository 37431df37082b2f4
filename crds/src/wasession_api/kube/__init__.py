"""The Kubernetes API: a client for plain manifests and an informer."""
