"use strict";

/* The token that the page has asked for: in the tab's own storage, and never in an address. */
const TOKEN = "kafka-state token";

const tokenOfTab = () => sessionStorage.getItem(TOKEN) ?? "";
const headersWith = (token) => (token ? { Authorization: `Bearer ${token}` } : {});
