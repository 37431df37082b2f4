"""What the HTTP servers share: operations (``openapi``, ``routes``), errors, event streams."""
