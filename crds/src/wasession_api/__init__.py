"""The API: the resource (``v1alpha1``), its CRD (``crd``), and what goes over HTTP (``report``, ``messages``, ``problem``)."""
