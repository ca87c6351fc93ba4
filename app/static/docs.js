"use strict";

const docs = document.getElementById("docs");
SwaggerUIBundle({ url: docs.dataset.openapi, domNode: docs, deepLinking: true });
