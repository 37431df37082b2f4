"""The WhatsAppSession API: the resource (``v1alpha1``), its CRD (``crd``), what a session pod says (``report``)."""
