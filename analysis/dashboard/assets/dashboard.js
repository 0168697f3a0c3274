// What happens in the browser alone: the address follows the controls, figures are saved, the
// reader's own choices (theme, saved views) are kept. Texts are only ever set as text.
(function () {
  "use strict";
  const noUpdate = () => window.dash_clientside.no_update;

  function texts(value) {
    if (value === null || value === undefined) return [];
    return (Array.isArray(value) ? value : [value]).map(String).filter((one) => one !== "");
  }

  let shown = { path: "", values: {} }; // of the controls, as they were seen last
  const same = (a, b) => a.length === b.length && a.every((one, place) => one === b[place]);

  // The search part of an address with these keys changed; keys that have their default are left out.
  function changed(search, changes) {
    const given = new URLSearchParams(search || "");
    for (const [key, values, fallback] of changes) {
      given.delete(key);
      if (!same(values, texts(fallback))) for (const one of values) given.append(key, one);
    }
    const told = given.toString();
    return told ? "?" + told : "";
  }

  function go(address) {
    window.history.pushState({}, "", address);
    window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
    window.scrollTo(0, 0);
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    mm1: {
      address: function (_values, search) {
        const context = window.dash_clientside.callback_context;
        const own = context.inputs_list[0] || [];
        const told = Object.fromEntries(own.map((one) => [one.id.key, texts(one.value)]));
        const same_address = [noUpdate(), told];
        // Controls of the page before may still be there when it is left.
        if (!context.triggered.length || !context.triggered.some((one) => one.prop_id)) return same_address;
        if (!own.length) return same_address;
        // What the reader changed, not what a page begins with: an address that names something
        // that is not there stays as it was, beside the notice that says so.
        if (shown.path !== window.location.pathname) shown = { path: window.location.pathname, values: {} };
        const changes = [];
        for (const one of own) {
          const values = texts(one.value);
          const before = shown.values[one.id.key];
          if (before && !same(before, values)) changes.push([one.id.key, values, one.id.default]);
          shown.values[one.id.key] = values;
        }
        const current = window.location.search;
        const now = changed(current, changes);
        return !changes.length || now === changed(current, []) ? same_address : [now, told];
      },
      title: function (seen) {
        const told = (seen && seen.title) || "mm1";
        if (document.title !== told) document.title = told;
        return told;
      },
      study: function (values, path) {
        const name = (values || [])[0];
        if (!name) return noUpdate();
        const parts = (path || "/").split("/");
        if (parts[1] === "study" && decodeURIComponent(parts[2] || "") === name) return noUpdate();
        const page = parts[1] === "study" && parts[3] ? parts[3] : "overview";
        return "/study/" + encodeURIComponent(name) + "/" + page;
      },
    },
  });

  // -- grids -------------------------------------------------------------------------------------

  const functions = (window.dashAgGridFunctions = window.dashAgGridFunctions || {});
  functions.told = function (params) {
    if (!params.data) return "";
    const told = params.data[params.colDef.field + "_"];
    return told === undefined || told === null ? params.value : told;
  };

  const cells = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});
  cells.PageLink = function (props) {
    const address = (props.data || {})[props.colDef.field + "_"];
    if (typeof address !== "string" || !/^\/(?![/\\])/.test(address)) return props.value;
    return window.React.createElement("a", { href: address }, props.value);
  };
  cells.Progress = function (props) {
    const shares = (props.data || {})[props.colDef.field + "_"] || [];
    const kinds = ["done", "running", "waiting", "failed"];
    const parts = kinds.map((kind, place) =>
      window.React.createElement("i", { key: kind, className: kind, style: { width: 100 * (shares[place] || 0) + "%" } })
    );
    const bar = window.React.createElement("span", { className: "bar", "aria-hidden": true }, parts);
    return window.React.createElement("span", { className: "progress" }, bar, props.value);
  };
  cells.Mark = function (props) {
    return window.React.createElement("span", { className: "state " + String(props.value).replace(/\W/g, "") }, props.value);
  };

  // -- the document --------------------------------------------------------------------------------

  const read = (key, fallback) => {
    try {
      const found = JSON.parse(window.localStorage.getItem("mm1." + key));
      return found === null ? fallback : found;
    } catch (_) {
      return fallback;
    }
  };
  const write = (key, value) => {
    try {
      window.localStorage.setItem("mm1." + key, JSON.stringify(value));
    } catch (_) {
      /* a browser that keeps nothing */
    }
  };

  const THEMES = ["system", "light", "dark"];
  function theme(name) {
    const dark = name === "dark" || (name === "system" && window.matchMedia("(prefers-color-scheme: dark)").matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    document.documentElement.dataset.agThemeMode = dark ? "dark" : "light";
    const button = document.getElementById("theme");
    if (button) button.textContent = "Theme: " + name;
  }
  const themed = () => theme(THEMES.includes(read("theme", "system")) ? read("theme", "system") : "system");
  themed();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themed);

  // Saved views: addresses by name, in this browser.
  function views() {
    const box = document.getElementById("saved-views");
    if (!box) return;
    box.textContent = "";
    const saved = read("views", []).filter((one) => one && typeof one.at === "string" && /^\/(?![/\\])/.test(one.at));
    const make = (tag, text, more) => Object.assign(document.createElement(tag), { textContent: text }, more || {});
    const form = make("form", "");
    const label = make("label", "Save this view as ");
    const name = Object.assign(document.createElement("input"), { value: document.title, maxLength: 120 });
    label.append(name);
    form.append(label, make("button", "Save", { type: "submit" }));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const at = window.location.pathname + window.location.search;
      write("views", [...saved.filter((one) => one.name !== name.value), { name: name.value, at: at }]);
      views();
    });
    const list = make("ul", "");
    for (const one of saved) {
      const item = make("li", "");
      const away = make("button", "×", { title: "Remove this view", className: "tool" });
      away.setAttribute("aria-label", "Remove the view " + one.name);
      away.addEventListener("click", () => {
        write("views", saved.filter((other) => other !== one));
        views();
      });
      const anchor = make("a", String(one.name), { href: one.at });
      item.append(anchor, away);
      list.append(item);
    }
    if (!saved.length) list.append(make("li", "None yet. They are kept in this browser.", { className: "faint" }));
    box.append(form, list);
  }

  document.addEventListener("toggle", (event) => event.target.id === "views" && event.target.open && views(), true);

  document.addEventListener("click", (event) => {
    if (!(event.target instanceof Element)) return;
    const box = document.getElementById("views");
    if (box && box.open && !box.contains(event.target)) box.open = false;
    if (event.target.id === "theme") {
      const next = THEMES[(THEMES.indexOf(read("theme", "system")) + 1) % THEMES.length];
      write("theme", next);
      theme(next);
      return;
    }
    const anchor = event.target.closest("a[href]");
    if (anchor && !anchor.download && !event.defaultPrevented && event.button === 0) {
      const plain = !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
      const to = new URL(anchor.href, window.location.href);
      const ours = to.origin === window.location.origin && !to.pathname.startsWith("/csv/") && !to.hash;
      if (plain && ours && !anchor.target) {
        event.preventDefault();
        go(to.pathname + to.search);
        if (box) box.open = false;
      }
      return;
    }
    const draw = event.target.closest("[data-draw]");
    if (draw && window.Plotly) {
      const drawn = draw.closest("figure").querySelector(".js-plotly-plot");
      const size = drawn.getBoundingClientRect();
      window.Plotly.toImage(
        { data: drawn.data, layout: Object.assign({}, drawn.layout, { paper_bgcolor: "#fff", plot_bgcolor: "#fff" }) },
        { format: draw.dataset.draw, width: Math.max(700, size.width), height: size.height, scale: draw.dataset.draw === "png" ? 2 : 1 }
      ).then((address) => {
        const link = document.createElement("a");
        link.href = address;
        link.download = draw.dataset.name + "." + draw.dataset.draw;
        link.click();
      });
    }
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      const text = copy.parentElement.querySelector("pre").textContent;
      navigator.clipboard.writeText(text).then(() => {
        copy.textContent = "Copied";
        setTimeout(() => (copy.textContent = "Copy"), 1500);
      });
    }
  });

  // Zooming into a figure that says so is part of the address: the server then sends finer points.
  function watchZoom() {
    for (const drawn of document.querySelectorAll(".js-plotly-plot")) {
      if (drawn.dataset.watched || !drawn.on) continue;
      drawn.dataset.watched = "1";
      drawn.on("plotly_relayout", (event) => {
        if (!drawn.closest("[data-zoom]")) return;
        const low = event["xaxis.range[0]"];
        const high = event["xaxis.range[1]"];
        let search = null;
        if (low !== undefined && high !== undefined)
          search = changed(window.location.search, [["from", [String(low)], ""], ["to", [String(high)], ""]]);
        else if (event["xaxis.autorange"]) search = changed(window.location.search, [["from", [], ""], ["to", [], ""]]);
        if (search !== null && search !== window.location.search) {
          window.history.replaceState({}, "", window.location.pathname + search);
          window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
        }
      });
    }
  }

  // -- what the reader did to a page ---------------------------------------------------------------

  // Dash makes every element of a page anew when anything on it has changed. What was unfolded,
  // scrolled or in focus is so again then, until the reader goes to another page.
  const nothing = () => ({ path: window.location.pathname, folds: new Map(), scrolls: new Map(), focus: null });
  let did = nothing();
  const done = () => (did.path === window.location.pathname ? did : (did = nothing()));
  const restored = { folds: new WeakSet(), scrolls: new WeakSet() };

  // Numbers count up while a study runs; what scrolls is known by its place alone.
  function kind(element) {
    if (element.id) return "#" + element.id;
    const named = element.tagName === "DETAILS" ? element.querySelector("summary") : element;
    const told = named && named.matches("summary, button, a") ? named.getAttribute("aria-label") || named.textContent : "";
    return element.tagName + " " + (told.replace(/\d+/g, "").slice(0, 100) || element.className);
  }
  const alike = (tag, of) => [...document.querySelectorAll("#main " + tag)].filter((one) => kind(one) === of);
  function placeOf(element) {
    const [tag, of] = [element.tagName, kind(element)];
    return JSON.stringify([tag, of, alike(tag, of).indexOf(element)]);
  }
  function find(place) {
    const [tag, of, number] = JSON.parse(place);
    return alike(tag, of)[number];
  }

  document.addEventListener(
    "click",
    (event) => {
      const summary = event.target instanceof Element && event.target.closest("#main summary");
      if (summary) done().folds.set(placeOf(summary.parentElement), !summary.parentElement.open);
    },
    true
  );
  document.addEventListener(
    "scroll",
    (event) => {
      const target = event.target;
      if (target instanceof Element && target.closest("#page")) done().scrolls.set(placeOf(target), [target.scrollLeft, target.scrollTop]);
    },
    true
  );
  document.addEventListener("focusin", (event) => {
    const target = event.target;
    done().focus = target.closest("#page, #controls") ? { element: target, place: placeOf(target) } : null;
  });
  document.addEventListener("focusout", (event) =>
    setTimeout(() => {
      const { focus } = done();
      if (focus && focus.element === event.target && focus.element.isConnected && document.activeElement === document.body)
        did.focus = null;
    })
  );

  function again(what, act) {
    for (const [place, value] of done()[what]) {
      const found = find(place);
      if (!found || restored[what].has(found)) continue;
      restored[what].add(found);
      act(found, value);
    }
  }

  function restore() {
    again("folds", (found, open) => (found.open = open));
    again("scrolls", (found, [x, y]) => found.scrollTo(x, y));
    const { focus } = done();
    if (!focus || focus.element.isConnected || document.activeElement !== document.body) return;
    const found = find(focus.place);
    if (!found) return;
    found.focus({ preventScroll: true });
    const { selectionStart, selectionEnd } = focus.element; // of what is written in
    if (typeof selectionStart === "number") found.setSelectionRange(selectionStart, selectionEnd);
  }

  // A grid's or a dropdown's parts that readers of the screen should know by name.
  function watch() {
    watchZoom();
    restore();
    const button = document.getElementById("theme");
    if (button && button.textContent === "Theme") themed();
    const here = document.querySelector("nav a.here");
    if (here && here.getAttribute("aria-current") !== "page") {
      for (const one of document.querySelectorAll("nav a[aria-current]")) one.removeAttribute("aria-current");
      here.setAttribute("aria-current", "page");
    }
    // Dash's dropdowns take the keyboard through an input that is hidden from readers of the screen.
    for (const hidden of document.querySelectorAll(".dash-dropdown-focus-target:not([inert])")) {
      hidden.setAttribute("inert", "");
      if (hidden.nextElementSibling) hidden.nextElementSibling.setAttribute("tabindex", "0");
    }
    // Its choices are inputs in their labels, and no options of a list.
    for (const choice of document.querySelectorAll(".dash-radioitems-inline[role=option], .dash-checklist-inline[role=option]")) {
      choice.removeAttribute("role");
      choice.removeAttribute("aria-selected");
      const list = choice.closest("[role=listbox]");
      if (list) list.setAttribute("role", choice.querySelector("[type=radio]") ? "radiogroup" : "group");
    }
    for (const field of document.querySelectorAll(".field")) {
      const label = field.querySelector(".label");
      const control = field.querySelector("button, input:not([aria-hidden]), [role=combobox], [role=radiogroup]");
      if (label && control && !control.getAttribute("aria-label")) control.setAttribute("aria-label", label.textContent);
    }
  }
  new MutationObserver(watch).observe(document.documentElement, { childList: true, subtree: true });
})();
