"use strict";

const docs = document.getElementById("docs");
const openapi = new URL(docs.dataset.openapi, document.baseURI).href;
// as the page has asked for it
const token = sessionStorage.getItem("kafka-state token");
const withToken = (request) => {
  if (token) request.headers.Authorization ??= `Bearer ${token}`;
  return request;
};
SwaggerUIBundle({ url: openapi, domNode: docs, deepLinking: true, requestInterceptor: withToken });
