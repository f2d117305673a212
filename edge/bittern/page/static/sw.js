"use strict";
// While the server does not answer, the page itself still opens and says so; what it shows always comes from the server.
const CACHE = "bittern";
const isShell = (url) => url.origin === location.origin && (url.href === registration.scope || url.pathname.startsWith(`${new URL(registration.scope).pathname}static/`));

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("message", (event) => event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(event.data))));
addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || !isShell(new URL(request.url))) return;
  event.respondWith((async () => {
    const cache = await caches.open(CACHE);
    try {
      const reply = await fetch(request);
      if (reply.ok) await cache.put(request, reply.clone());
      return reply;
    } catch (error) {
      const kept = await cache.match(request);
      if (kept) return kept;
      throw error;
    }
  })());
});
