// The gallery of the LoRA Trainer's Dataset step: draws the pictures in sight and no others, filters and selects them by
// mouse, touch and keyboard, and enlarges one. What it shows it asks of the server through the page's own events, one
// question at a time. Filter, selection and place are this browser tab's own.
(function () {
    "use strict";

    if (window.loraTrainerGallery) return;

    const LEAST = 132; // pixels of a card's width, at least
    const GAP = 8;
    const TEXT = 46; // pixels of a card's text below the picture
    const ROWS = 2; // drawn above and below those in sight
    const WINDOW = 16; // pictures asked for at once: some rows, so that the first are seen soon
    const KEPT = 600; // thumbnails and captions remembered
    const PATIENCE = 30000; // after which an unanswered question is asked again
    const PAUSE = 250; // milliseconds of typing before a filter is asked for
    const STORE = "lora_trainer_gallery:"; // + project
    const NOTHING = {state: "used", flags: [], folder: "", bucket: "", caption: "", text: "", least: null, most: null, query: "", within: []};

    const page = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const find = (selector) => page().querySelector(selector);
    const part = (name) => find(`#lora_trainer_gallery_part [data-part="${name}"]`);

    let project = "";
    let mark = ""; // of the scan that the index below is of
    let filter = {...NOTHING};
    let index = null; // the answer with the rows of the filter
    let paths = []; // of the rows
    let places = new Map(); // path → row
    let selected = new Set();
    let cursor = 0;
    let anchor = 0;
    let top = 0;
    let known = new Map(); // path → what a window told, the latest used last
    let drawn = new Map(); // row → card
    let spare = [];
    let view = null;
    let columns = 1;
    let side = LEAST;
    let frame = 0;
    let number = 0;
    let waiting = null; // the question under way: {number, since, ...question}
    const wanted = new Map(); // what is to be asked next, the latest of each kind
    let quiet = 0; // until when nothing is asked
    let grade = null;
    let pointer = ""; // what was pressed with last: a click itself does not tell in every browser
    let origin = "";
    let told = ""; // the mark in the page that was answered by a question for the index
    let confirming = 0; // since when the keyboard waits for a question to be confirmed
    let dirty = false; // the selection differs from what was published

    // ---- Questions and answers

    function ask(question) {
        if (question) wanted.set(question.kind, question);
        if ((waiting && Date.now() - waiting.since < PATIENCE) || Date.now() < quiet) return;
        const [next] = wanted.size ? wanted.values() : [missing()];
        if (!next) return;
        wanted.delete(next.kind);
        number += 1;
        waiting = {...next, number, since: Date.now()};
        const mine = waiting;
        same().then((yes) => {
            if (yes) find("#lora_trainer_gallery_ask").click();
            else if (waiting === mine) {
                waiting = null;
                quiet = Date.now() + PATIENCE;
                if (next.kind !== "window" && !wanted.has(next.kind)) wanted.set(next.kind, next);
            }
        });
    }

    // After a restart gradio's events have other numbers: a page from before must not press any.
    function same() {
        return fetch("app_id", {cache: "no-store"})
            .then((response) => response.text())
            .then((name) => {
                origin = origin || name;
                return origin === name;
            })
            .catch(() => false);
    }

    function answered(text) {
        if (!waiting) return;
        const answer = JSON.parse(text);
        if (answer.number !== waiting.number) return;
        const asked = waiting;
        waiting = null;
        if (answer.error) fail(answer.error, asked);
        else if (asked.kind === "index") take(answer, asked);
        else if (asked.kind === "whole") enlarge(answer.whole);
        else {
            asked.paths.forEach((path) => remember(path, answer.pictures[path] || {broken: view.dataset.gone}));
            fill();
            tell();
            if (answer.mark !== mark) askIndex();
        }
        ask();
    }

    function fail(error, asked) {
        if (asked.kind === "window") asked.paths.forEach((path) => remember(path, {broken: error}));
        else part("detail").textContent = error;
        fill();
    }

    function remember(path, told) {
        known.delete(path);
        known.set(path, told);
        if (known.size > KEPT) known.delete(known.keys().next().value);
    }

    function missing() {
        if (!index || !view) return null;
        const [first, last] = inSight();
        const lacking = [];
        for (let row = first; row < last && lacking.length < WINDOW; row += 1)
            if (!known.has(paths[row])) lacking.push(paths[row]);
        return lacking.length ? {kind: "window", paths: lacking} : null;
    }

    function askIndex() {
        ask({kind: "index", filter, selected: Array.from(selected)});
        told = shownMark();
    }

    function shownMark() {
        const holder = find("#lora_trainer_gallery_mark [data-mark]");
        return holder ? holder.dataset.mark : "";
    }

    function take(answer, asked) {
        const before = paths[cursor];
        const fresh = answer.mark !== mark;
        index = answer;
        mark = answer.mark;
        paths = answer.rows.map((row) => answer.folders[row[0]] + row[1]);
        places = new Map(paths.map((path, row) => [path, row]));
        const kept = new Set(answer.kept);
        const sent = new Set(asked.selected); // what was selected since then is still there
        selected = new Set(Array.from(selected).filter((path) => kept.has(path) || !sent.has(path)));
        dirty = true;
        if (fresh) known = new Map();
        cursor = places.has(before) ? places.get(before) : Math.min(cursor, Math.max(paths.length - 1, 0));
        anchor = cursor;
        drawn.forEach(away);
        drawn = new Map();
        filters();
        measure();
        changed();
    }

    // ---- Drawing

    function measure() {
        if (!view || !view.clientWidth) return; // another step is in sight
        const width = view.clientWidth - 2 * GAP;
        columns = Math.max(1, Math.floor((width + GAP) / (LEAST + GAP)));
        side = (width + GAP) / columns - GAP;
        const rows = Math.ceil(paths.length / columns);
        part("field").style.height = `${rows * (side + TEXT + GAP) + GAP}px`;
        if (view.scrollTop !== top) view.scrollTop = top;
        draw(true);
    }

    function inSight() {
        const height = side + TEXT + GAP;
        const first = Math.max(0, Math.floor(view.scrollTop / height) - ROWS);
        const last = Math.ceil((view.scrollTop + view.clientHeight) / height) + ROWS;
        return [first * columns, Math.min(paths.length, last * columns)];
    }

    function draw(anew) {
        if (!view) return;
        const [first, last] = inSight();
        drawn.forEach((card, row) => {
            if (row >= first && row < last) return;
            away(card);
            drawn.delete(row);
        });
        for (let row = first; row < last; row += 1) {
            const old = drawn.get(row);
            if (old && !anew) continue;
            const card = old || spare.pop() || made();
            if (!old) {
                drawn.set(row, card);
                write(card, row);
            }
            const across = GAP + (row % columns) * (side + GAP);
            const down = GAP + Math.floor(row / columns) * (side + TEXT + GAP);
            card.style.cssText = `width:${side}px;height:${side + TEXT}px;transform:translate(${across}px,${down}px)`;
            if (!card.parentNode) part("field").append(card);
        }
        ask();
    }

    function made() {
        const card = document.createElement("div");
        card.className = "lora-trainer-card";
        card.setAttribute("role", "option");
        card.innerHTML =
            '<div class="lora-trainer-frame"><img alt="" draggable="false"><span></span></div>' +
            '<button type="button" tabindex="-1" class="lora-trainer-tick" aria-hidden="true"></button><b></b><small></small>';
        return card;
    }

    function away(card) {
        card.remove();
        card.querySelector("img").removeAttribute("src");
        if (spare.length < 200) spare.push(card);
    }

    function write(card, row) {
        const [, name, width, height, bucket, flags] = index.rows[row];
        card.dataset.row = row;
        card.id = `lora_trainer_card_${row}`;
        card.setAttribute("aria-setsize", paths.length);
        card.setAttribute("aria-posinset", row + 1);
        card.querySelector("b").textContent = name;
        const about = [width ? `${width}×${height}` : "", index.buckets[bucket]].filter(Boolean);
        card.querySelector("small").textContent = about.join(" → ");
        card.title = [name, about.join(" → "), ...named(flags)].join("\n");
        card.toggleAttribute("data-flagged", flags > 0);
        state(card, row);
        thumbnail(card, row);
    }

    const named = (flags) => index.flags.filter((_, bit) => flags & (1 << bit));

    function state(card, row) {
        const chosen = String(selected.has(paths[row]));
        if (card.getAttribute("aria-selected") !== chosen) card.setAttribute("aria-selected", chosen);
        card.toggleAttribute("data-cursor", row === cursor);
    }

    function thumbnail(card, row) {
        const about = known.get(paths[row]);
        const image = card.querySelector("img");
        const words = card.querySelector("span");
        if (about) remember(paths[row], about);
        if (about && about.src) {
            if (image.getAttribute("src") !== about.src) image.src = about.src;
        } else image.removeAttribute("src");
        words.textContent = about && about.broken ? view.dataset.broken : "";
        words.title = (about && about.broken) || "";
    }

    function fill() {
        drawn.forEach((card, row) => thumbnail(card, row));
    }

    function changed() {
        dirty = true;
        drawn.forEach((card, row) => state(card, row));
        if (view) {
            if (drawn.has(cursor)) view.setAttribute("aria-activedescendant", `lora_trainer_card_${cursor}`);
            else view.removeAttribute("aria-activedescendant");
        }
        const total = part("total");
        if (total) total.textContent = paths.length;
        if (total) part("chosen").textContent = selected.size;
        page().querySelectorAll("#lora_trainer_gallery_actions button").forEach((button) => {
            const action = button.id.replace("lora_trainer_picture_", "");
            const fits = {include: filter.state === "excluded", restore: filter.state === "removed"}[action];
            button.classList.toggle("lora-trainer-hidden", fits === undefined ? !/^(used|out)$/.test(filter.state) : !fits);
            button.classList.toggle("lora-trainer-idle", selected.size === 0);
        });
        const to = find("#lora_trainer_picture_to");
        if (to) to.classList.toggle("lora-trainer-hidden", !/^(used|out)$/.test(filter.state));
        tell();
        save();
    }

    // The selection as every event of the page can read it: sent when nothing has changed for a moment, and at once
    // before a button could be pressed. What a reload needs is kept at leisure.
    let publishing = 0;
    let keeping = 0;
    function save() {
        if (dirty) {
            clearTimeout(publishing);
            publishing = setTimeout(publish, 80);
        }
        clearTimeout(keeping);
        keeping = setTimeout(keep, 400);
    }

    function publish() {
        if (!dirty) return;
        dirty = false;
        clearTimeout(publishing);
        const box = find("#lora_trainer_selection textarea, #lora_trainer_selection input");
        if (!box) return;
        box.value = JSON.stringify(Array.from(selected));
        box.dispatchEvent(new Event("input", {bubbles: true}));
    }

    function keep() {
        if (!project) return;
        try {
            const left = {filter, selected: Array.from(selected), cursor, top};
            sessionStorage.setItem(STORE + project, JSON.stringify(left));
        } catch (error) {
            sessionStorage.removeItem(STORE + project); // too many to keep: only a reload forgets them
        }
    }

    function restore() {
        let left = {};
        try {
            left = JSON.parse(sessionStorage.getItem(STORE + project)) || {};
        } catch (error) {
            left = {}; // somebody else's content: begin anew
        }
        filter = {...NOTHING, ...left.filter};
        selected = new Set(left.selected || []);
        cursor = left.cursor || 0;
        top = left.top || 0;
    }

    function tell() {
        const place = part("detail");
        if (!place || !index) return;
        place.textContent = "";
        part("nothing").hidden = paths.length > 0;
        if (!paths.length) return;
        const [, name, width, height, bucket, flags] = index.rows[cursor];
        const about = known.get(paths[cursor]) || {};
        const line = (kind, text) => {
            const element = document.createElement(kind);
            element.textContent = text;
            if (text) place.append(element);
        };
        line("b", name);
        line("small", [about.folder, width ? `${width}×${height}` : "", index.buckets[bucket]].filter(Boolean).join(" · "));
        named(flags).forEach((label) => line("em", label));
        line("small", about.told || about.broken || "");
        line("p", about.caption || "");
    }

    // ---- Filters

    function filters() {
        chips("state", index.choices.state, (value) => filter.state === value);
        chips("flags", index.choices.flags, (value) => filter.flags.includes(value));
        ["folder", "bucket", "caption"].forEach((name) => {
            const select = find(`#lora_trainer_gallery_part select[data-filter="${name}"]`);
            while (select.options.length > 1) select.remove(1);
            index.choices[name].forEach(([value, label, count]) => {
                const option = new Option(`${label} (${count})`, value);
                select.add(option);
            });
            select.value = filter[name];
        });
        ["text", "least", "most"].forEach((name) => {
            const box = find(`#lora_trainer_gallery_part input[data-filter="${name}"]`);
            if (document.activeElement !== box) box.value = filter[name] === null ? "" : filter[name];
        });
    }

    function chips(name, choices, chosen) {
        const holder = part(name);
        const focused = holder.contains(document.activeElement) ? document.activeElement.dataset.value : null;
        holder.textContent = "";
        choices.forEach(([value, label, count]) => {
            const button = document.createElement("button");
            button.type = "button";
            button.dataset.chip = name;
            button.dataset.value = value;
            button.setAttribute("aria-pressed", String(chosen(value)));
            const amount = document.createElement("b");
            const words = document.createElement("span");
            amount.textContent = count;
            words.textContent = label;
            button.append(amount, " ", words);
            holder.append(button);
            if (value === focused) button.focus();
        });
    }

    let typed = 0;
    function entered(element) {
        const name = element.dataset.filter;
        const value = element.value;
        const amount = value.trim() === "" || Number.isNaN(Number(value)) ? null : Math.max(0, Math.round(Number(value)));
        filter = {...filter, [name]: name === "least" || name === "most" ? amount : value};
        clearTimeout(typed);
        typed = setTimeout(refilter, element.tagName === "SELECT" ? 0 : PAUSE);
    }

    function press(chip) {
        const {chip: name, value} = chip.dataset;
        if (name === "state") {
            if (filter.state === value) return;
            filter = {...NOTHING, state: value};
            none(); // what can be done differs
        } else if (filter.flags.includes(value)) filter = {...filter, flags: filter.flags.filter((flag) => flag !== value)};
        else filter = {...filter, flags: [...filter.flags, value]};
        refilter();
    }

    function refilter() {
        top = 0;
        askIndex();
    }

    // ---- Selecting

    function range(from, to) {
        for (let row = Math.min(from, to); row <= Math.max(from, to); row += 1) selected.add(paths[row]);
    }

    function toggle(row) {
        if (!selected.delete(paths[row])) selected.add(paths[row]);
        anchor = row;
    }

    function all() {
        paths.forEach((path) => selected.add(path));
        changed();
    }

    function none() {
        selected.clear();
        changed();
    }

    function clicked(event, card) {
        const row = Number(card.dataset.row);
        cursor = row;
        const ticked = event.target.closest(".lora-trainer-tick") || pointer === "touch";
        if (event.shiftKey) {
            if (!event.ctrlKey && !event.metaKey) selected.clear();
            range(anchor, row);
        } else if (event.ctrlKey || event.metaKey || ticked) toggle(row);
        else {
            selected.clear();
            selected.add(paths[row]);
            anchor = row;
        }
        changed();
    }

    function go(row, extend) {
        cursor = Math.min(Math.max(row, 0), paths.length - 1);
        if (extend) range(anchor, cursor);
        else anchor = cursor;
        const height = side + TEXT + GAP;
        const above = Math.floor(cursor / columns) * height;
        if (above < view.scrollTop) view.scrollTop = above;
        else if (above + height + GAP > view.scrollTop + view.clientHeight)
            view.scrollTop = above + height + GAP - view.clientHeight;
        top = view.scrollTop;
        draw(false);
        changed();
    }

    function keyed(event) {
        if (!paths.length) return;
        const screen = columns * Math.max(1, Math.floor(view.clientHeight / (side + TEXT + GAP)));
        const control = event.ctrlKey || event.metaKey;
        const steps = {
            ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: screen, PageUp: -screen,
            Home: -paths.length, End: paths.length,
        };
        const button = (name) => {
            const element = find(`#lora_trainer_picture_${name}`);
            if (element && !element.disabled && !element.classList.contains("lora-trainer-hidden")) element.click();
        };
        if (event.key in steps && !event.altKey) go(cursor + steps[event.key], event.shiftKey);
        else if (event.key === " ") {
            toggle(cursor);
            changed();
        } else if (event.key === "Enter" && !control) ask({kind: "whole", path: paths[cursor]});
        else if (control && event.key.toLowerCase() === "a") all();
        else if (event.key === "Escape") none();
        else if (event.key === "Delete") {
            if (!selected.size) {
                toggle(cursor);
                changed();
            }
            button("exclude");
            confirming = Date.now();
        } else if (control && event.key.toLowerCase() === "z") button(event.shiftKey ? "redo" : "undo");
        else if (control && event.key.toLowerCase() === "y") button("redo");
        else return;
        event.preventDefault();
        event.stopPropagation();
    }

    function enlarge(whole) {
        const box = document.createElement("dialog");
        box.className = "lora-trainer-box lora-trainer-whole";
        const image = document.createElement(whole.src ? "img" : "p");
        if (whole.src) image.src = whole.src;
        else image.textContent = whole.broken;
        image.alt = whole.path;
        const name = document.createElement("p");
        name.textContent = whole.path;
        const caption = document.createElement("p");
        caption.textContent = whole.caption;
        box.append(image, name, caption);
        box.addEventListener("click", () => box.close());
        box.addEventListener("close", () => {
            box.remove();
            view.focus({preventScroll: true});
        });
        box.addEventListener("keydown", (event) => {
            const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
            event.stopPropagation();
            if (!step && event.key !== "Enter") return;
            event.preventDefault();
            box.close();
            if (!step) return;
            go(cursor + step, false);
            ask({kind: "whole", path: paths[cursor]});
        });
        find("#lora_trainer_root").append(box);
        box.showModal();
    }

    // ---- The page

    // What was begun by the keyboard goes on by it: to the confirmation, and from there back to the pictures.
    function follow() {
        const button = find("#lora_trainer_picture_confirm");
        if (!confirming || !button || button.offsetParent === null) return;
        if (document.activeElement === view) button.focus();
        confirming = 0;
    }

    function confirmed(event) {
        if (event.key !== "Enter" && event.key !== "Escape" && event.key !== " ") return;
        event.preventDefault();
        event.stopPropagation();
        const leave = event.key === "Escape" || event.target.id === "lora_trainer_picture_refuse";
        find(leave ? "#lora_trainer_picture_refuse" : "#lora_trainer_picture_confirm").click();
        view.focus({preventScroll: true});
    }

    function look() {
        follow();
        const holder = find("#lora_trainer_gallery_mark [data-mark]");
        const now = part("view");
        if (!holder || !now) return;
        if (now !== view) {
            view = now;
            settle();
        }
        if (holder.dataset.project !== project) {
            project = holder.dataset.project;
            index = null;
            mark = "";
            told = "";
            paths = [];
            known = new Map();
            restore();
        }
        if (holder.dataset.mark && holder.dataset.mark !== told) {
            told = holder.dataset.mark;
            if (told !== mark) askIndex();
        }
        ask();
    }

    function settle() {
        view.addEventListener("scroll", () => {
            if (!view.clientWidth) return;
            top = view.scrollTop;
            if (frame) return;
            frame = requestAnimationFrame(() => {
                frame = 0;
                draw(false);
                save();
            });
        }, {passive: true});
        view.addEventListener("pointerdown", (event) => {
            pointer = event.pointerType;
        }, {passive: true});
        view.addEventListener("keydown", keyed);
        view.addEventListener("click", (event) => {
            const card = event.target.closest(".lora-trainer-card");
            if (card) clicked(event, card);
        });
        view.addEventListener("dblclick", (event) => {
            const card = event.target.closest(".lora-trainer-card");
            if (card) ask({kind: "whole", path: paths[Number(card.dataset.row)]});
        });
        new ResizeObserver(measure).observe(view);
        part("titles").querySelectorAll("[data-button]").forEach((told) => {
            const button = find("#" + told.dataset.button);
            if (button) button.title = told.title;
        });
    }

    window.loraTrainerGallery = {
        // What is asked now; the page's event sends it.
        question: () => JSON.stringify(waiting || {}),
        answered,
        same,
        // What is selected, for an event that must not wait for the text box.
        selected: () => {
            publish();
            return JSON.stringify(Array.from(selected));
        },
        graded: () => JSON.stringify(grade),
        // For the Captions step: the picture at the cursor, a step from there, and filters that it adds to those above.
        current: () => (index && paths[cursor]) || "",
        go: (step) => go(cursor + step, false),
        narrow: (change) => {
            filter = {...filter, ...change};
            refilter();
        },
        narrowed: () => ({query: filter.query, within: filter.within}),
    };

    document.addEventListener("click", (event) => {
        const target = event.target.closest && event.target.closest("#lora_trainer_filters button");
        if (!target) return;
        if (target.dataset.chip) press(target);
        else if (target.dataset.do === "all") all();
        else if (target.dataset.do === "none") none();
        else if (target.dataset.do === "clear") {
            filter = {...NOTHING, state: filter.state};
            refilter();
        }
    });
    document.addEventListener("pointerdown", publish, {capture: true, passive: true});
    document.addEventListener("input", (event) => {
        if (event.target.matches && event.target.matches("#lora_trainer_filters [data-filter]")) entered(event.target);
    });
    document.addEventListener("keydown", (event) => {
        if (event.target.closest && event.target.closest("#lora_trainer_picture_confirm, #lora_trainer_picture_refuse")) confirmed(event);
    }, true);
    document.addEventListener("change", (event) => {
        const select = event.target.closest && event.target.closest("#lora_trainer_concepts select[data-grade]");
        if (!select) return;
        grade = [select.dataset.grade, select.value];
        find("#lora_trainer_grade").click();
    });
    setInterval(look, 200);
})();
