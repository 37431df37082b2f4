"""The Kubernetes API: a client for plain manifests (``client``) and a list+watch cache (``informer``)."""
