"use strict";

const docs = document.getElementById("docs");
const openapi = new URL(docs.dataset.openapi, document.baseURI).href;
const withToken = (request) => {
  request.headers = { ...headersWith(tokenOfTab()), ...request.headers };
  return request;
};
SwaggerUIBundle({ url: openapi, domNode: docs, deepLinking: true, requestInterceptor: withToken });
