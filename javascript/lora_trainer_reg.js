// The Reg images step of the LoRA Trainer's tab: selects made images by mouse and keyboard, enlarges them, and leaves tags out
// of the captions by a click. What is selected is sent with the buttons that need it; everything else the server does.
(function () {
    "use strict";

    if (window.loraTrainerReg) return;

    const page = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const find = (selector) => page().querySelector(selector);
    const cards = () => Array.from(page().querySelectorAll(".lora-trainer-reg-field > [data-reg-name]"));

    let field = null; // the gallery in sight; the server draws it anew whenever something changes
    let project = "";
    let cursor = ""; // name of an image
    let anchor = "";
    let pointer = "mouse";
    let focused = false; // whether the gallery had the keyboard when it was drawn anew
    const selected = new Set(); // names, also of images on other pages
    const versions = new Map(); // of each image that was in sight: a re-rolled one is no longer selected

    function look() {
        const now = find(".lora-trainer-reg-field");
        if (now === field) return;
        if (field) focused = focused || field === document.activeElement;
        field = now;
        if (!field) return;
        if (field.dataset.regProject !== project) {
            project = field.dataset.regProject;
            selected.clear();
            versions.clear();
        }
        cards().forEach((card) => {
            const {regName: name, regVersion: version} = card.dataset;
            if (versions.has(name) && versions.get(name) !== version) selected.delete(name);
            versions.set(name, version);
        });
        draw();
        if (focused) field.focus({preventScroll: true});
        focused = false;
    }

    function draw() {
        const shown = cards();
        if (!shown.some((card) => card.dataset.regName === cursor)) cursor = shown.length ? shown[0].dataset.regName : "";
        shown.forEach((card) => {
            const chosen = String(selected.has(card.dataset.regName));
            if (card.getAttribute("aria-selected") !== chosen) card.setAttribute("aria-selected", chosen);
            card.toggleAttribute("data-cursor", card.dataset.regName === cursor);
        });
        const count = find('[data-reg="count"]');
        if (count) count.textContent = selected.size;
        ["reroll", "remove"].forEach((name) => {
            const button = find("#lora_trainer_reg_" + name);
            if (button) button.classList.toggle("lora-trainer-idle", selected.size === 0);
        });
    }

    function range(from, to) {
        const names = cards().map((card) => card.dataset.regName);
        const ends = [Math.max(0, names.indexOf(from)), Math.max(0, names.indexOf(to))];
        names.slice(Math.min(...ends), Math.max(...ends) + 1).forEach((name) => selected.add(name));
    }

    function toggle(name) {
        if (!selected.delete(name)) selected.add(name);
        anchor = name;
    }

    function clicked(event, card) {
        cursor = card.dataset.regName;
        const several = event.ctrlKey || event.metaKey || pointer === "touch";
        if (event.shiftKey) {
            if (!several) selected.clear();
            range(anchor || cursor, cursor);
        } else if (several) toggle(cursor);
        else {
            const alone = selected.size === 1 && selected.has(cursor);
            selected.clear();
            if (!alone) selected.add(cursor);
            anchor = cursor;
        }
        draw();
    }

    function columns(shown) {
        const top = shown[0].offsetTop;
        return Math.max(1, shown.filter((card) => card.offsetTop === top).length);
    }

    function go(step, extend) {
        const shown = cards();
        const place = shown.findIndex((card) => card.dataset.regName === cursor);
        const card = shown[Math.min(Math.max(place + step, 0), shown.length - 1)];
        if (extend && !selected.size) anchor = cursor;
        cursor = card.dataset.regName;
        if (extend) range(anchor || cursor, cursor);
        else anchor = cursor;
        card.scrollIntoView({block: "nearest"});
        draw();
    }

    function press(name) {
        const button = find("#lora_trainer_reg_" + name);
        if (button && !button.disabled && !button.classList.contains("lora-trainer-idle")) button.click();
    }

    function keyed(event) {
        const shown = cards();
        if (!shown.length) return;
        const wide = columns(shown);
        const control = event.ctrlKey || event.metaKey;
        const steps = {
            ArrowRight: 1, ArrowLeft: -1, ArrowDown: wide, ArrowUp: -wide, Home: -shown.length, End: shown.length,
        };
        if (event.key in steps && !event.altKey) go(steps[event.key], event.shiftKey);
        else if (event.key === " ") {
            toggle(cursor);
            draw();
        } else if (event.key === "Enter" && !control) enlarge();
        else if (control && event.key.toLowerCase() === "a") all();
        else if (event.key === "Escape") none();
        else if (event.key === "Delete") press("remove");
        else if (control && event.key.toLowerCase() === "z") press(event.shiftKey ? "redo" : "undo");
        else if (control && event.key.toLowerCase() === "y") press("redo");
        else return;
        event.preventDefault();
        event.stopPropagation();
    }

    function all() {
        cards().forEach((card) => selected.add(card.dataset.regName));
        draw();
    }

    function none() {
        selected.clear();
        draw();
    }

    function enlarge() {
        const box = document.createElement("dialog");
        box.className = "lora-trainer-box lora-trainer-whole lora-trainer-reg-whole";
        const image = document.createElement("img");
        const name = document.createElement("p");
        const caption = document.createElement("p");
        const show = () => {
            const card = cards().find((each) => each.dataset.regName === cursor);
            const small = card && card.querySelector("img");
            image.hidden = !small;
            if (small) image.src = small.dataset.regWhole;
            name.textContent = card ? `${cursor} · ${card.querySelector("small").textContent}` : "";
            caption.textContent = card ? card.querySelector("p").textContent : "";
        };
        box.append(image, name, caption);
        box.addEventListener("click", () => box.close());
        box.addEventListener("close", () => {
            box.remove();
            if (field) field.focus({preventScroll: true});
        });
        box.addEventListener("keydown", (event) => {
            const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
            event.stopPropagation();
            if (!step && event.key !== "Enter" && event.key !== " ") return;
            event.preventDefault();
            if (step) {
                go(step, false);
                show();
            } else if (event.key === " ") {
                toggle(cursor);
                draw();
            } else box.close();
        });
        show();
        find("#lora_trainer_root").append(box);
        box.showModal();
    }

    // A tag in the list: out of the captions, or in them again, as if its line had been typed.
    function mark(button) {
        const box = find("#lora_trainer_set_reg_remove textarea");
        if (!box) return;
        const lines = box.value.split("\n").map((line) => line.trim()).filter(Boolean);
        const out = !lines.includes(button.dataset.regMark);
        box.value = (out ? [...lines, button.dataset.regMark] : lines.filter((line) => line !== button.dataset.regMark)).join("\n");
        box.dispatchEvent(new Event("input", {bubbles: true}));
        button.setAttribute("aria-pressed", String(out));
        setTimeout(() => box.dispatchEvent(new Event("blur")), 50); // gradio saves it when it is left
    }

    window.loraTrainerReg = {
        // What is selected, for the events that are about it.
        selected: () => JSON.stringify(Array.from(selected)),
    };

    document.addEventListener("pointerdown", (event) => {
        pointer = event.pointerType;
    }, {capture: true, passive: true});
    document.addEventListener("click", (event) => {
        const target = event.target.closest && event.target;
        if (!target) return;
        const card = target.closest(".lora-trainer-reg-field > [data-reg-name]");
        if (card) clicked(event, card);
        const tag = target.closest("[data-reg-mark]");
        if (tag) mark(tag);
        const button = target.closest("[data-reg-do]");
        if (button) ({page: all, none}[button.dataset.regDo])();
    });
    document.addEventListener("dblclick", (event) => {
        const card = event.target.closest && event.target.closest(".lora-trainer-reg-field > [data-reg-name]");
        if (!card) return;
        cursor = card.dataset.regName;
        draw();
        enlarge();
    });
    document.addEventListener("keydown", (event) => {
        if (event.target.matches && event.target.matches(".lora-trainer-reg-field")) keyed(event);
    });
    document.addEventListener("focusout", (event) => {
        // A gallery that is drawn anew loses the keyboard without the person having left it.
        if (event.target !== field || event.relatedTarget) return;
        focused = true;
        setTimeout(() => {
            if (event.target.isConnected) focused = false;
        });
    });
    document.addEventListener("focusin", () => {
        focused = false;
    });
    new MutationObserver(look).observe(document.documentElement, {childList: true, subtree: true});
})();
