// Where the site is a folder, a browser starts no worker; the search then runs in a hidden frame.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.body.append(frame);
      this.inside = frame.contentWindow;
      this.ready = new Promise((done) => {
        const page = frame.contentDocument;
        const begin = page.createElement("script");
        begin.textContent =
          "postMessage = (data) => parent.postMessage(data, '*');" +
          "importScripts = (...urls) => Promise.all(urls.map((url) => new Promise((done) => {" +
          "const one = document.createElement('script'); one.src = url; one.onload = done;" +
          "document.body.append(one); })));";
        page.body.append(begin);
        const script = page.createElement("script");
        script.src = url;
        script.onload = done;
        page.body.append(script);
      });
      window.addEventListener("message", (event) => {
        if (event.source === this.inside) {
          this.dispatchEvent(new MessageEvent("message", { data: event.data }));
          if (this.onmessage) this.onmessage(event);
        }
      });
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {}
  };
  window.Worker = window.IFrameWorker;
}
