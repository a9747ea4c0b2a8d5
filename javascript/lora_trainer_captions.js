// The Captions step of the LoRA Trainer's tab: borrows the gallery of the Dataset step while the step is open, shows the
// caption of the picture at its cursor, and edits it by keyboard, chips and completion. Filters of the filter language and
// the table of tags narrow the gallery. What it shows it asks of the server through the page's own events.
(function () {
    "use strict";

    if (window.loraTrainerCaptions) return;

    const PAUSE = 250; // milliseconds of typing before something is asked
    const IDLE = 3000; // milliseconds after the last saved caption until the folders are read again
    const PATIENCE = 30000; // after which an unanswered question is asked again
    const OFFERS = 12; // completions in the list
    const ROWS = 300; // tags in the table

    const page = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const find = (selector) => page().querySelector(selector);
    const part = (name) => find(`#lora_trainer_captions_part [data-caption="${name}"]`);
    const gallery = () => window.loraTrainerGallery;
    const box = () => part("text");

    let number = 0;
    let waiting = null; // the question under way
    let quiet = 0; // until when nothing is asked
    const wanted = new Map(); // what is to be asked next, the latest of each kind
    let shown = null; // the caption in sight, as the server told it
    let path = ""; // of the picture at the gallery's cursor
    let mark = ""; // of the scan that was shown last
    let conflict = null;
    let words = null; // the answer with all tags
    let offers = []; // completions in sight
    let offer = 0;
    let query = "";
    let home = null; // where the gallery belongs: a mark in the Dataset step
    let opened = false;
    let edited = 0; // when a caption was saved that the gallery does not show yet
    let going = false; // save, then go on to the next picture
    let dragged = -1;

    // ---- Questions and answers

    function ask(question) {
        if (question) wanted.set(question.kind, question);
        if ((waiting && Date.now() - waiting.since < PATIENCE) || Date.now() < quiet || !wanted.size) return;
        const next = wanted.get("save") || wanted.values().next().value;
        wanted.delete(next.kind);
        number += 1;
        waiting = {...next, number, since: Date.now()};
        const mine = waiting;
        gallery().same().then((yes) => {
            if (yes) find("#lora_trainer_captions_ask").click();
            else if (waiting === mine) {
                waiting = null;
                quiet = Date.now() + PATIENCE;
                if (!wanted.has(next.kind)) wanted.set(next.kind, next);
            }
        });
    }

    function answered(text) {
        if (!waiting) return;
        const answer = JSON.parse(text);
        if (answer.number !== waiting.number) return;
        const asked = waiting;
        waiting = null;
        if (asked.kind === "query") filtered(answer, asked);
        else if (answer.error) failed(answer.error, asked);
        else if (asked.kind === "caption") {
            if (asked.path === path && !dirty()) show(answer);
        } else if (asked.kind === "count") {
            if (shown && asked.text === box().value) count(answer.tokens);
        } else if (asked.kind === "words") {
            words = answer;
            table();
            complete();
        } else if (asked.kind === "save") saved(answer, asked);
        ask();
    }

    function failed(error, asked) {
        going = false;
        if (asked.kind === "caption" && asked.path === path) {
            shown = null;
            find("#lora_trainer_caption").dataset.state = "none";
        }
        tell(error, true);
    }

    // ---- The caption

    const dirty = () => Boolean(shown && box() && normal(box().value) !== normal(shown.text));
    const normal = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean).join("\n");

    function show(answer) {
        shown = answer;
        conflict = null;
        const field = find("#lora_trainer_caption");
        field.dataset.state = answer.editable ? "ready" : "locked";
        const image = field.querySelector("img");
        if (answer.src) {
            if (image.getAttribute("src") !== answer.src) image.src = answer.src;
        } else image.removeAttribute("src");
        image.hidden = !answer.src;
        image.alt = answer.name;
        part("broken").textContent = answer.broken || "";
        part("name").textContent = answer.name;
        part("folder").textContent = answer.folder;
        box().value = answer.text;
        box().disabled = !answer.editable;
        part("conflict").hidden = true;
        tell(answer.told || (answer.seen ? "" : "No caption file yet."), Boolean(answer.told));
        count(answer.tokens);
        grow();
    }

    function tell(text, loud) {
        const place = part("state");
        if (!place) return;
        place.textContent = text;
        place.classList.toggle("lora-trainer-loud", Boolean(loud));
    }

    function count(tokens) {
        const place = part("tokens");
        if (tokens) {
            const room = tokens.chunks * 75;
            place.textContent = `${tokens.count} / ${room} tokens`;
            place.title = tokens.chunks > 1 ? `${tokens.chunks} chunks of 75 tokens` : "";
        } else place.textContent = "";
        place.dataset.chunks = tokens ? tokens.chunks : "";
        chips(tokens ? tokens.ends : []);
    }

    // A line of its own begins anew: chips are those of the line that the cursor is in, of the first otherwise.
    function line() {
        const text = box().value;
        const at = document.activeElement === box() ? box().selectionStart : 0;
        const start = text.lastIndexOf("\n", at - 1) + 1;
        const end = text.indexOf("\n", at);
        return [start, end < 0 ? text.length : end];
    }

    function tags() {
        const [start, end] = line();
        return box().value.slice(start, end).split(",").map((tag) => tag.trim());
    }

    function chips(ends) {
        const list = part("tags");
        list.textContent = "";
        const all = tags();
        const prose = all.some((tag) => tag.split(" ").length > 8);
        list.hidden = prose || !box().value.trim();
        if (list.hidden) return;
        const single = !box().value.trim().includes("\n");
        all.forEach((tag, place) => {
            if (tag) list.append(chip(tag, place));
            if (single && ends.includes(place) && place < all.length - 1) {
                const end = document.createElement("li");
                end.className = "lora-trainer-chunk";
                end.title = "Here a chunk of 75 tokens ends";
                end.textContent = "75";
                list.append(end);
            }
        });
    }

    function chip(tag, place) {
        const item = document.createElement("li");
        item.draggable = !box().disabled;
        item.dataset.place = place;
        const name = document.createElement("span");
        name.textContent = tag;
        const away = document.createElement("button");
        away.type = "button";
        away.textContent = "×";
        away.setAttribute("aria-label", `Remove ${tag}`);
        away.dataset.captionAway = place;
        item.append(name, away);
        return item;
    }

    function retag(all) {
        const [start, end] = line();
        const field = box();
        field.setRangeText(all.filter(Boolean).join(", "), start, end, "end");
        entered();
    }

    function moved(from, to) {
        const all = tags();
        const [tag] = all.splice(from, 1);
        all.splice(to, 0, tag);
        retag(all);
    }

    let typed = 0;
    function entered() {
        grow();
        chips([]);
        tell(dirty() ? "Not saved yet." : "", false);
        clearTimeout(typed);
        typed = setTimeout(() => ask({kind: "count", text: box().value}), PAUSE);
    }

    function grow() {
        const field = box();
        field.style.height = "auto";
        field.style.height = `${Math.min(field.scrollHeight + 2, window.innerHeight / 3)}px`;
    }

    function save(onward) {
        if (!shown || box().disabled || waiting && waiting.kind === "save") return;
        going = onward;
        if (!dirty()) {
            if (onward) next();
            return;
        }
        tell("Saving …", false);
        ask({kind: "save", path: shown.path, text: box().value, seen: shown.seen});
    }

    function saved(answer, asked) {
        if (answer.conflict) {
            going = false;
            conflict = answer.conflict;
            part("theirs").textContent = conflict.text || "—";
            part("conflict").hidden = false;
            tell("Not saved.", true);
            return;
        }
        if (answer.changed) edited = Date.now();
        if (shown && shown.path === asked.path) {
            const mine = box().value;
            show(answer.saved);
            if (normal(mine) !== normal(asked.text)) { // typed on meanwhile
                box().value = mine;
                entered();
            } else tell("Saved.", false);
        }
        if (going) next();
        going = false;
    }

    function next() {
        gallery().go(1);
        follow();
        box().focus();
    }

    function back() {
        if (!shown) return;
        box().value = shown.text;
        part("conflict").hidden = true;
        count(shown.tokens);
        tell("", false);
        grow();
    }

    function settle(mine) {
        if (!conflict) return;
        const text = box().value;
        show(conflict);
        if (!mine) return;
        box().value = text;
        entered();
        save(false);
    }

    // ---- Completion

    function piece() {
        const field = box();
        const before = field.value.slice(0, field.selectionStart);
        const start = Math.max(before.lastIndexOf(","), before.lastIndexOf("\n")) + 1;
        return [before.slice(start).trimStart(), field.selectionStart - before.slice(start).trimStart().length];
    }

    const plain = (text) => text.toLowerCase().replace(/[\s_]+/g, " ").trim();

    function fitting(text) {
        const start = [];
        const inside = [];
        const there = new Set(tags().map(plain));
        const look = (tag, amount) => {
            const name = plain(tag);
            if (name === text || there.has(name)) return;
            if (name.startsWith(text)) start.push([tag, amount]);
            else if (start.length < OFFERS && name.includes(" " + text)) inside.push([tag, amount]);
        };
        words.rows.forEach(([tag, amount]) => look(tag, amount));
        for (let place = 0; place < words.others.length && start.length < OFFERS; place += 1) look(words.others[place], 0);
        return [...start, ...inside].slice(0, OFFERS);
    }

    function complete() {
        const list = find("#lora_trainer_caption_offers");
        const field = box();
        if (!list || document.activeElement !== field) return;
        const [text] = piece();
        offers = words && plain(text).length > 1 ? fitting(plain(text)) : [];
        offer = 0;
        list.textContent = "";
        offers.forEach(([tag, amount], place) => {
            const item = document.createElement("li");
            item.setAttribute("role", "option");
            item.setAttribute("aria-selected", String(place === offer));
            item.id = `lora_trainer_offer_${place}`;
            item.dataset.captionOffer = place;
            const name = document.createElement("span");
            const times = document.createElement("small");
            name.textContent = tag;
            times.textContent = amount || "";
            item.append(name, times);
            list.append(item);
        });
        list.hidden = !offers.length;
        if (offers.length) field.setAttribute("aria-activedescendant", "lora_trainer_offer_0");
        else field.removeAttribute("aria-activedescendant");
    }

    function choose(step) {
        const list = find("#lora_trainer_caption_offers");
        offer = (offer + step + offers.length) % offers.length;
        Array.from(list.children).forEach((item, place) => item.setAttribute("aria-selected", String(place === offer)));
        box().setAttribute("aria-activedescendant", `lora_trainer_offer_${offer}`);
        list.children[offer].scrollIntoView({block: "nearest"});
    }

    function accept(place) {
        const field = box();
        const [, start] = piece();
        const rest = field.value.slice(field.selectionStart);
        field.setRangeText(offers[place][0] + (/^\s*(,|\n|$)/.test(rest) ? "" : ", "), start, field.selectionStart, "end");
        hideOffers();
        entered();
        field.focus();
    }

    function hideOffers() {
        offers = [];
        const list = find("#lora_trainer_caption_offers");
        if (list) list.hidden = true;
    }

    // ---- The filter, and the table of tags

    let asking = 0;
    let narrowing = false; // a filter is on its way to the gallery
    function filter(text, at) {
        query = text;
        narrowing = true;
        const field = part("query");
        if (field && field.value !== text) field.value = text;
        clearTimeout(asking);
        asking = setTimeout(() => ask({kind: "query", text}), at || 0);
    }

    function filtered(answer, asked) {
        const place = part("wrong");
        const field = part("query");
        if (asked.text !== query) return;
        narrowing = false;
        const wrong = answer.wrong || answer.error || "";
        place.textContent = "";
        field.setAttribute("aria-invalid", String(Boolean(wrong)));
        if (wrong) {
            const column = answer.column || 1;
            const pointed = document.createElement("code");
            const bad = document.createElement("mark");
            bad.textContent = query.slice(column - 1, column) || " ";
            pointed.append(query.slice(0, column - 1), bad, query.slice(column));
            place.append(pointed, document.createElement("br"), wrong);
            return;
        }
        gallery().narrow({query});
    }

    function quoted(tag) {
        const bare = tag.replace(/ /g, "_");
        return /^[\w-]+$/.test(bare) && !/^(and|or|not)$/i.test(bare) && !bare.startsWith("-") ? bare : `tag:"${tag.replace(/(["\\*?])/g, "\\$1")}"`;
    }

    function toggleTag(tag, not) {
        const term = quoted(tag);
        const parts = query.split(" ").filter(Boolean);
        const there = parts.indexOf(term) >= 0 ? term : parts.indexOf("-" + term) >= 0 ? "-" + term : "";
        const left = there ? parts.filter((each) => each !== there) : parts;
        const now = not ? "-" + term : term;
        filter((there === now ? left : [...left, now]).join(" "));
        table();
    }

    function table() {
        const list = part("frequency");
        if (!words || !list) return;
        const select = part("where");
        if (select.options.length !== words.folders.length + 1) {
            while (select.options.length > 1) select.remove(1);
            words.folders.forEach((name, place) => select.add(new Option(`${name} (${words.pictures[place]})`, String(place))));
        }
        const where = select.value;
        const text = plain(part("find").value);
        const whole = where === "" ? words.pictures.reduce((sum, each) => sum + each, 0) : words.pictures[Number(where)];
        const rows = words.rows
            .map(([tag, total, counts]) => [tag, where === "" ? total : counts[Number(where)], counts])
            .filter(([tag, amount]) => amount && plain(tag).includes(text))
            .sort((one, other) => other[1] - one[1]);
        list.textContent = "";
        rows.slice(0, ROWS).forEach(([tag, amount, counts]) => {
            const item = document.createElement("li");
            const name = document.createElement("button");
            const not = document.createElement("button");
            const times = document.createElement("b");
            const share = document.createElement("i");
            [name, not].forEach((button) => { button.type = "button"; });
            name.textContent = tag;
            name.dataset.captionTag = tag;
            const parts = query.split(" ");
            name.setAttribute("aria-pressed", String(parts.includes(quoted(tag))));
            not.textContent = "−";
            not.dataset.captionNot = tag;
            not.setAttribute("aria-label", `Without ${tag}`);
            not.setAttribute("aria-pressed", String(parts.includes("-" + quoted(tag))));
            times.textContent = amount;
            share.style.width = `${(amount / Math.max(whole, 1)) * 100}%`;
            item.title = words.folders.map((folder, place) => `${folder}: ${counts[place]}`).join("\n");
            item.append(name, not, times, share);
            list.append(item);
        });
        if (rows.length > ROWS) {
            const rest = document.createElement("li");
            rest.textContent = `… and ${rows.length - ROWS} more`;
            list.append(rest);
        }
    }

    // ---- The forms beside: what their lists of switches say

    function pruning() {
        const wishes = {};
        page().querySelectorAll("[data-prune-folder]").forEach((folder) => {
            const wish = {};
            folder.querySelectorAll("[data-prune]").forEach((entry) => { wish[entry.dataset.prune] = entry.value; });
            wishes[folder.dataset.pruneFolder] = wish;
        });
        const switches = {};
        page().querySelectorAll("[data-prune-plan]").forEach((plan) => {
            const own = {};
            plan.querySelectorAll("[data-prune-tag]").forEach((entry) => { own[entry.dataset.pruneTag] = entry.checked; });
            switches[plan.dataset.prunePlan] = own;
        });
        return [JSON.stringify(wishes), JSON.stringify(switches)];
    }

    function cleaning() {
        const switches = {};
        page().querySelectorAll("[data-clean]").forEach((entry) => { switches[entry.dataset.clean] = entry.checked; });
        return JSON.stringify(switches);
    }

    // What was chosen for folders outlasts the list being drawn anew.
    const wishes = new Map();
    function keepWishes() {
        page().querySelectorAll("[data-prune-folder]:not([data-kept])").forEach((folder) => {
            folder.dataset.kept = "1";
            const left = wishes.get(folder.dataset.pruneFolder) || {};
            folder.querySelectorAll("[data-prune]").forEach((entry) => {
                if (entry.dataset.prune in left) entry.value = left[entry.dataset.prune];
            });
        });
    }

    // ---- The page

    function borrow() {
        const own = find("#lora_trainer_gallery_part");
        const place = find("#lora_trainer_captions_gallery");
        if (!own || !place || !gallery() || !gallery().current) return;
        const here = place.offsetParent !== null;
        const there = find("#lora_trainer_step_dataset");
        if (here && own.parentNode !== place) {
            if (!home || !home.isConnected) {
                home = document.createComment("the gallery's place");
                own.before(home);
            }
            place.append(own);
        } else if (!here && own.parentNode === place && there && there.offsetParent !== null) home.after(own);
        if (here !== opened) {
            opened = here;
            if (here) {
                find("#lora_trainer_captions_look").click();
                ask({kind: "words"});
            } else if (edited) reread();
        }
    }

    function reread() {
        edited = 0;
        find("#lora_trainer_captions_later").click();
    }

    function follow() {
        const now = gallery().current();
        if (now === path || (waiting && waiting.kind === "save")) return;
        if (dirty()) {
            tell(`Save or discard ${shown.name} first.`, true);
            return;
        }
        path = now;
        hideOffers();
        if (now) ask({kind: "caption", path: now});
        else {
            shown = null;
            find("#lora_trainer_caption").dataset.state = "none";
        }
    }

    function look() {
        borrow();
        keepWishes();
        if (!opened) return;
        meet();
        const holder = find("#lora_trainer_gallery_mark [data-mark]");
        const now = holder ? holder.dataset.mark : "";
        find("#lora_trainer_captions_part").hidden = !now;
        find("#lora_trainer_captions_none").hidden = Boolean(now);
        if (!now) return;
        if (now !== mark) {
            if (mark) find("#lora_trainer_captions_look").click();
            mark = now;
            ask({kind: "words"});
            if (path && !dirty()) ask({kind: "caption", path});
        }
        const left = gallery().narrowed();
        const wrong = part("query").getAttribute("aria-invalid") === "true";
        if (!narrowing && !wrong && left.query !== query) { // cleared there, or kept from before a reload
            query = left.query;
            part("query").value = query;
            table();
        }
        const within = left.within.length > 0;
        if (!narrowing && part("within").checked !== within) part("within").checked = within;
        follow();
        if (edited && Date.now() - edited > IDLE && document.activeElement !== box()) reread();
        ask();
    }

    // What work ended with is looked at, wherever the button that began it is.
    let met = null;
    function meet() {
        const result = find("#lora_trainer_captions_shown .lora-trainer-figures") || find("#lora_trainer_captions_said .lora-trainer-notice");
        if (result === met) return;
        met = result;
        const place = find("#lora_trainer_captions_bench");
        if (!result || !place) return;
        const {top} = place.getBoundingClientRect();
        if (top < 0 || top > window.innerHeight * 0.7) place.scrollIntoView({behavior: "smooth", block: "start"});
    }

    window.loraTrainerCaptions = {
        // What is asked now; the page's event sends it.
        question: () => JSON.stringify(waiting || {}),
        answered,
        pruning,
        cleaning,
    };

    document.addEventListener("click", (event) => {
        const target = event.target.closest && event.target.closest("#lora_trainer_captions_part [data-caption-do], #lora_trainer_captions_part button, #lora_trainer_captions_part [data-caption-offer]");
        if (!target) return;
        const about = target.dataset;
        if (about.captionDo === "save") save(false);
        else if (about.captionDo === "next") save(true);
        else if (about.captionDo === "back") back();
        else if (about.captionDo === "theirs") settle(false);
        else if (about.captionDo === "mine") settle(true);
        else if (about.captionAway !== undefined) retag(tags().filter((_, place) => place !== Number(about.captionAway)));
        else if (about.captionTag !== undefined) toggleTag(about.captionTag, false);
        else if (about.captionNot !== undefined) toggleTag(about.captionNot, true);
        else if (about.captionDo === "clear") {
            gallery().narrow({query: "", within: []});
            filter("");
            table();
        }
    });
    document.addEventListener("mousedown", (event) => {
        const item = event.target.closest && event.target.closest("[data-caption-offer]");
        if (!item) return;
        event.preventDefault(); // the text box keeps the keyboard
        accept(Number(item.dataset.captionOffer));
    });
    document.addEventListener("input", (event) => {
        const name = event.target.dataset && event.target.closest("#lora_trainer_captions_part") ? event.target.dataset.caption : "";
        if (name === "text") {
            entered();
            complete();
        } else if (name === "query") filter(event.target.value, PAUSE);
        else if (name === "find" || name === "where") table();
        const folder = event.target.closest && event.target.closest("[data-prune-folder]");
        if (folder) wishes.set(folder.dataset.pruneFolder, JSON.parse(pruning()[0])[folder.dataset.pruneFolder]);
    });
    document.addEventListener("change", (event) => {
        if (!event.target.matches || !event.target.matches("[data-caption=within]")) return;
        gallery().narrow({within: event.target.checked ? JSON.parse(gallery().selected()) : []});
    });
    document.addEventListener("focusout", (event) => {
        if (event.target === box()) hideOffers();
    });
    document.addEventListener("dragstart", (event) => {
        const item = event.target.closest && event.target.closest(".lora-trainer-tags [data-place]");
        if (!item) return;
        dragged = Number(item.dataset.place);
        event.dataTransfer.effectAllowed = "move";
        event.dataTransfer.setData("text/plain", item.firstChild.textContent);
    });
    document.addEventListener("dragover", (event) => {
        if (dragged >= 0 && event.target.closest && event.target.closest(".lora-trainer-tags")) event.preventDefault();
    });
    document.addEventListener("drop", (event) => {
        const item = event.target.closest && event.target.closest(".lora-trainer-tags [data-place]");
        if (dragged < 0 || !item) return;
        event.preventDefault();
        moved(dragged, Number(item.dataset.place));
        dragged = -1;
    });
    document.addEventListener("dragend", () => { dragged = -1; });

    // Enter on a picture edits its caption; it enlarges in the Dataset step. Before the gallery's own keys.
    document.addEventListener("keydown", (event) => {
        if (!event.target.closest) return;
        const control = event.ctrlKey || event.metaKey;
        if (event.target.closest("#lora_trainer_captions_gallery .lora-trainer-view") && event.key === "Enter" && !control) {
            event.preventDefault();
            event.stopPropagation();
            follow();
            if (shown && !box().disabled) {
                box().focus();
                box().setSelectionRange(box().value.length, box().value.length);
            }
            return;
        }
        if (event.target !== box()) return;
        if (offers.length && (event.key === "ArrowDown" || event.key === "ArrowUp")) choose(event.key === "ArrowDown" ? 1 : -1);
        else if (offers.length && (event.key === "Tab" || (event.key === "Enter" && !control))) accept(offer);
        else if (offers.length && event.key === "Escape") hideOffers();
        else if (event.key === "Enter" && control) save(true);
        else if (control && event.key.toLowerCase() === "s") save(false);
        else if (event.key === "Escape") {
            if (dirty()) back();
            find(".lora-trainer-view").focus({preventScroll: true});
        } else return;
        event.preventDefault();
        event.stopPropagation();
    }, true);
    window.addEventListener("beforeunload", (event) => {
        if (dirty()) event.preventDefault();
    });
    setInterval(look, 200);
})();
