"""HTTP as all servers here speak it: operations (``openapi``, ``routes``), errors (``problem``) and event streams (``sse``)."""
