"use strict";

/* A browser opens six connections to a host at most, so its pages share one stream. Each page gets
   what the follower tells, and first what it told before the page came. */
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
