"""The API: the resource (``v1alpha1``), its CRD (``crd``), and what its programs share."""
