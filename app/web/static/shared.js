"use strict";

/* One connection for all pages of a browser, of which it opens six to a host: what the follower
   tells goes to each of them, and what it has told before to those that come later. */
importScripts("token.js", "follow.js");

const pages = new Set();
const told = {};
let follower = null;

function tell(message) {
  const states = told.history?.states ?? [];
  if (message.kind === "state") {
    told.history = { kind: "history", states: withState(states, message.state) };
  } else if (message.kind === "history") {
    told.history = { kind: "history", states: withHistory(states, message.states) };
  } else {
    told[message.kind] = message;
  }
  pages.forEach((page) => page.postMessage(message));
}

onconnect = ({ ports: [page] }) => {
  page.onmessage = ({ data }) => {
    if (data.leaves) {
      pages.delete(page);
      return;
    }
    pages.add(page);
    Object.values(told).forEach((message) => page.postMessage(message));
    if (follower) return;
    follower = new Follower(data.urls, data.token, tell);
    follower.run().then(() => (follower = null));
  };
};
