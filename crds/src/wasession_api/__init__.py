"""The WhatsAppSession API: the custom resource (``v1alpha1``), its CRD (``crd``) and what a session pod says (``report``)."""
