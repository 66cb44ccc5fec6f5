"use strict";
/* Puts the sheet (runtime/page/sheet.py) where it belongs, as text, and asks for what is pressed. */
window.poyo = (() => {
  const $ = id => document.getElementById(id);
  const seen = {};
  let armed = false;

  const make = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const changed = (name, value) => {
    const text = JSON.stringify(value);
    if (seen[name] === text) return false;
    seen[name] = text;
    return true;
  };

  function ask(what) {
    const asks = model("ask");
    if (asks) asks.data = {json: [JSON.stringify(what)]};
  }
  const model = name => window.Bokeh && Bokeh.documents[0] && Bokeh.documents[0].get_model_by_name(name);
  function drawn(number) {
    const ack = model("ack");
    if (ack) requestAnimationFrame(() => { ack.data = {drawn: [number]}; });
  }
  const tell = (command, argument) => ask({do: "tell", command, argument: argument || "", now: false});

  function card(one) {
    const box = make("article", undefined, "card"), table = make("table");
    box.dataset.tone = one.tone;
    box.append(make("h3", one.title));
    if (one.lines.some(line => line[2])) {
      const head = make("thead"), row = make("tr");
      row.append(make("th", ""), make("th", "new"), make("th", "in use"));
      head.append(row); table.append(head);
    }
    for (const [name, fresh, old] of one.lines) {
      const row = make("tr");
      row.append(make("th", name), make("td", fresh));
      if (old) row.append(make("td", old));
      table.append(row);
    }
    box.append(table);
    if (one.reason) box.append(make("p", one.reason));
    const actions = make("div", undefined, "row");
    for (const [command, words] of one.actions) {
      const button = make("button", words);
      button.dataset.tell = command;
      actions.append(button);
    }
    if (one.actions.length) box.append(actions);
    return box;
  }

  function lists(sheet) {
    if (changed("cards", sheet.cards)) {
      const none = make("p", "No fit yet. Fits come with --calibrate or --recalibrate.");
      $("cards").replaceChildren(...(sheet.cards.length ? sheet.cards.map(card) : [none]));
      enable();
    }
    if (changed("events", sheet.events)) {
      $("events").replaceChildren(...sheet.events.map(([at, kind, text]) => {
        const item = make("li");
        item.append(make("time", at), make("b", kind), make("span", text));
        return item;
      }));
      if (!sheet.events.length) $("events").append(make("li", "Nothing yet", "none"));
    }
    if (changed("flags", sheet.flags)) {
      $("flags").replaceChildren(...sheet.flags.map(([flag, words]) => {
        const item = make("li");
        item.append(make("b", flag), " " + words);
        return item;
      }));
    }
    if (changed("notes", sheet.notes)) {
      $("notes").hidden = !sheet.notes.length;
      $("notes").querySelector("ul").replaceChildren(...sheet.notes.map(one => make("li", one)));
    }
    if (changed("sessions", sheet.commands.sessions)) {
      $("session").replaceChildren(...sheet.commands.sessions.map(one => make("option", one)));
    }
    if (changed("recorded", sheet.recorded)) {
      put($("recorded"), sheet.recorded.text);
      $("recorded").dataset.tone = sheet.recorded.tone;
      const lines = sheet.recorded.lines.flatMap(([a, b]) => [make("dt", a), make("dd", b)]);
      $("recordedLines").replaceChildren(...lines);
    }
  }

  function mark(name, age) {
    for (const box of document.querySelectorAll("." + name)) {
      box.classList.toggle("old", age !== "");
      box.querySelector("h2").dataset.age = age && " · as of " + age + " ago";
    }
  }

  function enable() {
    for (const button of document.querySelectorAll("[data-tell]")) button.disabled = !armed;
  }

  function show(text) {
    const sheet = JSON.parse(text), mine = sheet.mine, commands = sheet.commands;
    if (sheet.reload) { location.reload(); return; }
    put($("title"), sheet.title); put($("subtitle"), sheet.subtitle);
    put($("headline"), sheet.headline); $("headline").dataset.tone = sheet.tone;
    document.title = sheet.headline.slice(0, 60) + " · " + sheet.title;
    document.body.classList.toggle("gone", !commands.alive);
    for (const [name, [figure, tone, below]] of Object.entries(sheet.figures)) {
      const box = $("f-" + name);
      if (!box) { put($("frames"), figure + " " + below); continue; }
      box.dataset.tone = tone;
      put(box.querySelector(".big"), figure); put(box.querySelector(".below"), below);
    }
    for (const [name, age] of Object.entries(sheet.old)) mark(name, age);
    lists(sheet);
    armed = mine.armed && commands.alive;
    enable();
    $("arm").hidden = mine.armed || !commands.address; $("armed").hidden = !mine.armed;
    const read = commands.address ? "Read-only until armed" : "Read-only: the run takes no commands (--control)";
    put($("mine"), mine.busy ? "Waiting for the run" : mine.said || (mine.armed ? "Armed" : read));
    $("mine").dataset.tone = mine.said ? mine.tone : mine.armed ? "warn" : "";
    $("held").hidden = !commands.held;
    put($("held"), commands.held ? "Values are held at zero: " + commands.held : "");
    document.querySelector(".steer").hidden = !sheet.simulated;
    $("steer").checked = sheet.steers;
    drawn(sheet.number);
  }

  function press(key) {
    if (key === "a") { $("token").focus(); return true; }
    if (key === "m") { if (armed) $("text").focus(); return armed; }
    if (key === "?") { $("help").open = !$("help").open; $("help").scrollIntoView({block: "nearest"}); return true; }
    const target = document.querySelector(
      key === "t" ? "[data-tell=take]" : key === "x" ? "[data-tell=reject]" : `[data-key="${CSS.escape(key)}"]`);
    if (target && target.offsetParent && !target.disabled) { target.click(); return true; }
    return false;
  }

  addEventListener("DOMContentLoaded", () => {
    document.addEventListener("click", event => {
      const button = event.target.closest("[data-tell]");
      if (button && !button.disabled) tell(button.dataset.tell);
    });
    $("disarm").addEventListener("click", () => ask({do: "disarm"}));
    $("steer").addEventListener("change", () => ask({do: "steer", on: $("steer").checked}));
    const form = (id, act) => $(id).addEventListener("submit", event => { event.preventDefault(); act(); });
    form("arm", () => { ask({do: "arm", token: $("token").value}); $("token").value = ""; });
    form("swap", () => tell("swap", $("session").value));
    form("mark", () => { if ($("text").value) tell("mark", $("text").value); $("text").value = ""; });
    addEventListener("keydown", event => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") { document.activeElement.blur(); return; }
      if (event.target.matches("input:not([type=checkbox]),select,textarea")) return;
      if (press(event.key)) event.preventDefault();
    });
  });
  /* A page whose server is gone says so itself. */
  let heard = Date.now();
  setInterval(() => {
    const silent = Date.now() - heard;
    if (document.hidden || silent < 3000 || !$("headline")) return;
    const age = Math.round(silent / 1000) + " s", gone = silent > 8000;
    put($("headline"), gone
      ? "This page has lost its server " + age + " ago; decoding does not depend on it. Reload to try again"
      : "This page has heard nothing for " + age + ": what it shows is old");
    $("headline").dataset.tone = "bad"; document.body.classList.toggle("gone", gone);
    mark("live", age); mark("told", age);
    if (gone) { armed = false; enable(); }
  }, 1000);
  return {show: text => { heard = Date.now(); show(text); }};
})();
