// The LoRA Trainer tab's own script: asks the server what is new while the tab is seen, marks the steps, folds parts of
// the page and searches the settings, enlarges samples, reads and writes settings files, and hands a finished adapter to
// txt2img. Everything else is done by the server's events.
(function () {
    "use strict";

    if (window.loraTrainer) return;

    const OFTEN = 1500; // milliseconds between questions while something trains
    const SELDOM = 6000; // otherwise: another browser may have started or changed something
    const PATIENCE = 15000; // after which an unanswered question is asked again
    const STORE = "lora_trainer_project";
    const FOLDS = "lora_trainer_folds"; // fold's id → open or not, as this browser left it

    let attached = false;
    let asked = 0;
    let answered = "";
    let reloaded = 0;
    let restarted = false;
    let training = null;
    let server = "";
    let marked = "";
    let texts = null;

    const page = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const find = (selector) => page().querySelector(selector);

    function seen() {
        const root = find("#lora_trainer_root");
        return Boolean(root && root.offsetParent !== null && !document.hidden);
    }

    function press(id) {
        const button = find("#" + id);
        if (button) button.click();
        return Boolean(button);
    }

    function typing() {
        const element = document.activeElement;
        const root = find("#lora_trainer_root");
        return Boolean(element && root && root.contains(element) && /^(INPUT|TEXTAREA)$/.test(element.tagName));
    }

    function look() {
        if (restarted || !seen()) return;
        if (!attached) {
            attached = true;
            known().then((same) => same && press("lora_trainer_attach"));
            return;
        }
        const state = find("#lora_trainer_state");
        const now = Date.now();
        if (state) {
            mark(state.dataset);
            if (state.dataset.active === "1" && training === false) show();
            training = state.dataset.active === "1";
            if (state.dataset.project) localStorage.setItem(STORE, state.dataset.project);
            if (state.dataset.stale === "1" && !typing() && now - reloaded > 3000) {
                reloaded = now;
                known().then((same) => same && press("lora_trainer_attach"));
            }
        }
        const tick = state ? state.dataset.tick : "";
        const waiting = tick === answered && now - asked < PATIENCE;
        const pause = state && state.dataset.busy !== "1" ? SELDOM : OFTEN;
        if ((asked && waiting) || now - asked < pause - 100) return;
        answered = tick;
        asked = now;
        known().then((same) => same && press("lora_trainer_refresh"));
    }

    // Gradio addresses its events by number. After a restart a page from before would press other events than it means,
    // so it asks first whether the server is still the one it came from.
    function known() {
        return fetch("app_id", {cache: "no-store"})
            .then((response) => response.text())
            .then((name) => {
                server = server || name;
                restarted = server !== name;
                if (restarted) tell();
                return !restarted;
            })
            .catch(() => false); // not reachable at the moment: ask again later
    }

    function tell() {
        const box = document.createElement("div");
        box.className = "lora-trainer-notice";
        box.textContent = "The server was restarted. Reload this page; whatever was saved is still there.";
        find("#lora_trainer_root").prepend(box);
    }

    function mark(data) {
        const buttons = page().querySelectorAll("#lora_trainer_steps > .tab-nav > button");
        const bodies = page().querySelectorAll("#lora_trainer_steps > .tabitem");
        buttons.forEach((button, index) => {
            const now = (bodies[index] && data[bodies[index].id.replace("lora_trainer_step_", "")]) || "";
            if (button.dataset.mark !== now) button.dataset.mark = now;
        });
    }

    // A training has begun: what it does appears above the button that began it.
    function show() {
        const live = find("#lora_trainer_live");
        if (live && live.offsetParent !== null) live.scrollIntoView({behavior: "smooth", block: "center"});
    }

    function enter(element, text) {
        element.value = text;
        element.dispatchEvent(new Event("input", {bubbles: true}));
    }

    // Folds: gradio's own forget their state with every reload and cannot be opened from here.
    function folds() {
        try {
            return JSON.parse(localStorage.getItem(FOLDS)) || {};
        } catch (error) {
            return {}; // somebody else's content: begin anew
        }
    }

    function fold(part, open) {
        part.dataset.open = open ? "1" : "0";
        const head = part.querySelector(".lora-trainer-fold-head");
        if (head) head.setAttribute("aria-expanded", String(open));
    }

    function restoreFolds() {
        const left = folds();
        page().querySelectorAll(".lora-trainer-fold:not([data-open])").forEach((part) => {
            fold(part, part.id in left ? left[part.id] : part.classList.contains("lora-trainer-open-first"));
        });
    }

    function toggleFold(head) {
        const part = head.closest(".lora-trainer-fold");
        const open = part.dataset.open !== "1";
        fold(part, open);
        localStorage.setItem(FOLDS, JSON.stringify({...folds(), [part.id]: open}));
    }

    function uncover(element) {
        for (let part = element.closest(".lora-trainer-fold"); part; part = part.parentElement.closest(".lora-trainer-fold"))
            fold(part, true);
    }

    // A field with a mistake must be seen, whatever is folded.
    function uncoverMarked() {
        const list = find("#lora_trainer_marked");
        const now = list ? list.dataset.marked : "";
        if (now === marked) return;
        marked = now;
        now.split(" ").filter(Boolean).forEach((id) => find("#" + id) && uncover(find("#" + id)));
    }

    // Show the body of a row of tabs as a click on its name does.
    function turnTo(row, body) {
        const bodies = Array.from(page().querySelectorAll(row + " > .tabitem"));
        const button = page().querySelectorAll(row + " > .tab-nav > button")[bodies.indexOf(body)];
        if (button) button.click();
    }

    function goTo(element) {
        turnTo("#lora_trainer_steps", element.closest("#lora_trainer_steps > .tabitem"));
        uncover(element);
        setTimeout(() => {
            element.scrollIntoView({behavior: "smooth", block: "center"});
            const entry = element.querySelector("input, textarea");
            if (entry) entry.focus({preventScroll: true});
        }, 80);
    }

    // What a setting can be found by: its path, label and help in English, the same as translated, other trainers' names.
    function index() {
        const holder = find("#lora_trainer_index");
        if (!texts && holder) texts = JSON.parse(holder.dataset.index);
        return texts || {};
    }

    function alias(names, wanted) {
        const plain = wanted.replace(/[\s_-]+/g, "_");
        return plain.length < 3 ? "" : names.find((name) => name.toLowerCase().replace(/[\s_-]+/g, "_").includes(plain)) || "";
    }

    function searched(text) {
        const wanted = text.trim().toLowerCase();
        const words = wanted.split(/\s+/).filter(Boolean);
        const more = find("#lora_trainer_fold_more");
        const hits = find("#lora_trainer_hits");
        more.toggleAttribute("data-searching", words.length > 0);
        hits.textContent = "";
        const elsewhere = [];
        let found = 0;
        Object.entries(index()).forEach(([id, entry]) => {
            const setting = find("#" + id);
            if (!setting) return;
            const shown = setting.textContent.toLowerCase();
            const other = words.length ? alias(entry.names, wanted) : "";
            const whole = entry.group.toLowerCase() === wanted;
            const hit = !words.length || whole || other || words.every((word) => (entry.words + " " + shown).includes(word));
            const inside = more.contains(setting);
            if (inside) setting.classList.toggle("lora-trainer-unfound", !hit);
            if (inside && hit && other) setting.dataset.hint = other;
            else delete setting.dataset.hint;
            if (hit && inside) found += 1;
            if (hit && !inside && words.length && (other || entry.label.toLowerCase().includes(wanted))) elsewhere.push([setting, entry, other]);
        });
        more.querySelectorAll("#lora_trainer_groups > .lora-trainer-fold").forEach((group) => {
            const any = group.querySelector(".lora-trainer-setting:not(.lora-trainer-unfound)");
            group.classList.toggle("lora-trainer-unfound", !any);
        });
        elsewhere.forEach(([setting, entry, other]) => {
            const button = document.createElement("button");
            button.type = "button";
            const label = setting.querySelector('[data-testid="block-info"], label span');
            const step = setting.closest("#lora_trainer_step_dataset") ? "Dataset" : "above";
            button.textContent = `${label ? label.textContent.trim() : entry.label} (${step})` + (other ? ` · ${other}` : "");
            button.addEventListener("click", () => goTo(setting));
            hits.append(button);
        });
        if (words.length && !found && !elsewhere.length) hits.textContent = "Nothing is called that.";
    }

    function enlarge(image) {
        const all = Array.from(image.closest(".lora-trainer-samples").querySelectorAll("img[data-whole]"));
        let place = all.indexOf(image);
        const box = document.createElement("dialog");
        box.className = "lora-trainer-box";
        const large = document.createElement("img");
        const text = document.createElement("p");
        box.append(large, text);
        const show = () => {
            const title = all[place].closest("section").querySelector("h4");
            large.src = all[place].dataset.whole;
            large.alt = all[place].alt;
            text.textContent = (title ? title.textContent + " — " : "") + all[place].alt;
        };
        box.addEventListener("click", () => box.close());
        box.addEventListener("close", () => box.remove());
        box.addEventListener("keydown", (event) => {
            const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
            if (!step) return;
            event.preventDefault();
            event.stopPropagation();
            place = (place + step + all.length) % all.length;
            show();
        });
        show();
        find("#lora_trainer_root").append(box);
        box.showModal();
    }

    function openTab(name) {
        const tabs = find("#tabs");
        const body = find("#tab_" + name);
        if (!tabs || !body) return;
        const bodies = Array.from(tabs.querySelectorAll(":scope > .tabitem"));
        const buttons = tabs.querySelectorAll(":scope > .tab-nav > button");
        const button = buttons[bodies.indexOf(body)];
        if (button) button.click();
    }

    // Fill in txt2img's prompt and let its Lora list show the new files.
    function prompted(text) {
        const prompt = find("#txt2img_prompt textarea");
        if (!text || !prompt) return false;
        enter(prompt, text);
        const list = find("#txt2img_lora_extra_refresh_internal");
        if (list) list.dispatchEvent(new Event("click"));
        return true;
    }

    window.loraTrainer = {
        // What this browser had open last, and the folder its form shows; asked for when the page is opened.
        remembered: (folder) => [null, localStorage.getItem(STORE) || "", folder],

        // Fill in the prompt, or everything that an image was made with, and go there. text: JSON, {prompt} or {infotext}.
        toTxt2img: (text) => {
            const wanted = text ? JSON.parse(text) : {};
            if (wanted.infotext) window.loraTrainer.infotextToTxt2img(wanted.infotext);
            else if (prompted(wanted.prompt)) openTab("txt2img");
        },

        // Have txt2img read an image's parameters from its prompt box, as its own button ↙ does, and go there.
        infotextToTxt2img: (text) => {
            if (!prompted(text)) return;
            openTab("txt2img");
            const paste = find("#txt2img_tools #paste");
            if (paste) setTimeout(() => paste.click(), 100); // gradio takes over what was entered a moment later
        },

        // Open the Evaluate step on a run; "" for the one that the live panel shows.
        evaluate: (run) => {
            enter(find("#lora_trainer_evaluate_wanted textarea, #lora_trainer_evaluate_wanted input"), run || "live");
            setTimeout(() => turnTo("#lora_trainer_steps", find("#lora_trainer_step_evaluate")), 100);
        },

        // Show a panel of the Evaluate step: pick, grid, blocks or bake.
        evaluatePanel: (name) => {
            turnTo("#lora_trainer_evaluate_panels", find("#lora_trainer_evaluate_" + name));
            const panels = find("#lora_trainer_evaluate_panels");
            if (panels) panels.scrollIntoView({behavior: "smooth", block: "start"});
        },

        download: () => {
            const text = find("#lora_trainer_toml textarea");
            if (!text.value) {
                press("lora_trainer_export");
                setTimeout(window.loraTrainer.download, 400);
                return;
            }
            const link = document.createElement("a");
            link.href = URL.createObjectURL(new Blob([text.value], {type: "application/toml"}));
            link.download = (localStorage.getItem(STORE) || "lora-trainer") + ".toml";
            link.click();
            URL.revokeObjectURL(link.href);
        },

        open: () => {
            const chooser = document.createElement("input");
            chooser.type = "file";
            chooser.accept = ".toml,.json,.txt,.sh,.bat,.ps1,text/plain,application/json";
            chooser.addEventListener("change", () => {
                const file = chooser.files[0];
                if (!file) return;
                enter(find("#lora_trainer_file_name textarea, #lora_trainer_file_name input"), file.name);
                file.text().then((text) => enter(find("#lora_trainer_toml textarea"), text));
            });
            chooser.click();
        },
    };

    document.addEventListener("input", (event) => {
        const box = event.target.closest && event.target.closest("#lora_trainer_search");
        if (box) searched(event.target.value);
    });
    document.addEventListener("click", (event) => {
        const image = event.target.closest && event.target.closest(".lora-trainer-samples img[data-whole]");
        if (image) enlarge(image);
        const head = event.target.closest && event.target.closest(".lora-trainer-fold-head");
        if (head) toggleFold(head);
        const made = event.target.closest && event.target.closest("#lora_trainer_root [data-to-txt2img]");
        if (made) window.loraTrainer.infotextToTxt2img(made.dataset.toTxt2img);
        const run = event.target.closest && event.target.closest("#lora_trainer_root [data-evaluate]");
        if (run) window.loraTrainer.evaluate(run.dataset.evaluate);
        const cell = event.target.closest && event.target.closest("#lora_trainer_root [data-pick-cell]");
        if (cell) enter(find("#lora_trainer_pick_cell textarea, #lora_trainer_pick_cell input"), cell.dataset.pickCell);
        const step = event.target.closest && event.target.closest("#lora_trainer_steps > .tab-nav > button");
        if (step) setTimeout(look, 50);
    });
    document.addEventListener("keydown", (event) => {
        const image = event.key === "Enter" && event.target.matches && event.target.matches("img[data-whole]");
        if (image) enlarge(event.target);
    });
    // Gradio draws the row of steps anew when one is chosen, so the marks are put back on every look and every change.
    new MutationObserver(() => {
        const state = find("#lora_trainer_state");
        if (state) mark(state.dataset);
        restoreFolds();
        uncoverMarked();
        const root = find("#lora_trainer_root"); // on its own the page has no txt2img, and no buttons that lead there
        if (root && !root.dataset.txt2img && find("#txt2img_prompt")) root.dataset.txt2img = "1";
    }).observe(document.documentElement, {childList: true, subtree: true}); // the WebUI runs this before there is a body
    setInterval(look, 300);
})();
