// The grids of the LoRA Trainer's Evaluate step: the size of the cells, and a viewer in which an image is zoomed, laid
// beside another one behind a slider, flipped with it, and sent to txt2img. The cells themselves are the server's HTML.
(function () {
    "use strict";

    if (window.loraTrainerGrid) return;

    const SIZE = "lora_trainer_grid_size"; // pixels of a cell, as this browser left it
    const SMALLEST = 0.05; // of an image's own size
    const LARGEST = 32;

    const page = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const root = () => page().querySelector("#lora_trainer_root");
    const inGrid = (event, selector) => event.target.closest && event.target.closest(`[data-grid] ${selector}`);

    let viewer = null; // the dialog's parts while it is open
    let first = null; // cells: what is looked at, and what it is compared with
    let second = null;
    let picking = false; // the next click on a cell chooses what to compare with
    let slider = true;
    let scale = 0; // of the first image; 0: fit it
    let left = 0;
    let top = 0;

    function make(name, attributes, ...children) {
        const made = document.createElement(name);
        Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
        made.append(...children);
        return made;
    }

    function button(text, action, hint) {
        const made = make("button", {type: "button", title: hint || ""}, text);
        made.addEventListener("click", action);
        return made;
    }

    function open() {
        const one = make("img", {alt: "", draggable: "false"});
        const other = make("img", {alt: "", draggable: "false"});
        const cut = make("input", {type: "range", min: "0", max: "100", value: "50", "aria-label": "Where the second image begins"});
        const names = make("b", {});
        const facts = make("pre", {tabindex: "0"});
        const stage = make("div", {class: "lora-trainer-viewer-stage"}, one, other, cut);
        const compare = button("Compare with…", pick);
        const turn = button("Flip", flip, "Space");
        const mode = button("Slider", () => { slider = !slider; show(); });
        const whole = button("Fit", () => { scale = 0; show(); });
        const bar = make("div", {class: "lora-trainer-viewer-bar"}, names, compare, turn, mode, whole);
        const dialog = make("dialog", {class: "lora-trainer-viewer"}, bar, stage, facts);
        bar.append(button("Close", () => dialog.close(), "Escape"));
        viewer = {dialog, stage, one, other, cut, names, facts, turn, mode, bar, send: null};
        cut.addEventListener("input", place);
        one.addEventListener("load", show);
        other.addEventListener("load", place);
        stage.addEventListener("wheel", zoom, {passive: false});
        stage.addEventListener("pointermove", (event) => {
            if (!event.buttons || event.target === cut) return;
            left += event.movementX;
            top += event.movementY;
            place();
        });
        stage.addEventListener("dblclick", () => { scale = 0; show(); });
        dialog.addEventListener("keydown", key);
        dialog.addEventListener("close", closed);
        // The frame of the page hears the button for txt2img only inside.
        root().append(dialog);
        dialog.showModal();
    }

    function closed() {
        const back = first;
        viewer.dialog.remove();
        viewer = null;
        if (!picking) mark();
        if (back && document.contains(back)) back.focus();
    }

    function mark() {
        page().querySelectorAll("[data-grid] [data-grid-cell]").forEach((cell) => {
            cell.toggleAttribute("data-first", cell === first);
            cell.toggleAttribute("data-second", cell === second);
        });
    }

    function send() {
        if (viewer.send) viewer.send.remove();
        const there = first.parentElement.querySelector("[data-to-txt2img]");
        viewer.send = there && there.cloneNode(true);
        if (!viewer.send) return;
        viewer.send.removeAttribute("class");
        viewer.send.addEventListener("click", () => setTimeout(() => viewer && viewer.dialog.close(), 0));
        viewer.bar.insertBefore(viewer.send, viewer.bar.lastChild);
    }

    // ---- What is shown

    function pick() {
        picking = true;
        viewer.dialog.close();
        root().querySelectorAll("[data-grid]").forEach((grid) => grid.toggleAttribute("data-picking", grid.contains(first)));
    }

    function chosen(cell, compared) {
        root().querySelectorAll("[data-picking]").forEach((grid) => grid.removeAttribute("data-picking"));
        if (compared && first && first !== cell && document.contains(first)) second = cell;
        else [first, second] = [cell, null];
        picking = false;
        slider = true;
        scale = 0;
        mark();
        if (!viewer) open();
        set();
    }

    function set() {
        const {one, other, names, facts} = viewer;
        one.src = first.dataset.whole;
        one.alt = first.title;
        if (second) {
            other.src = second.dataset.whole;
            other.alt = second.title;
        }
        names.textContent = second ? `${first.title} / ${second.title}` : first.title;
        facts.textContent = first.dataset.infotext;
        send();
        mark();
        show();
    }

    function show() {
        if (!viewer) return;
        const {one, other, cut, stage, turn, mode} = viewer;
        other.hidden = cut.hidden = !(second && slider);
        turn.hidden = mode.hidden = !second;
        mode.setAttribute("aria-pressed", String(slider));
        if (!scale) {
            const width = Number(first.dataset.width);
            const height = Number(first.dataset.height);
            scale = Math.min(stage.clientWidth / width, stage.clientHeight / height);
            left = (stage.clientWidth - width * scale) / 2;
            top = (stage.clientHeight - height * scale) / 2;
        }
        one.style.width = `${first.dataset.width}px`;
        one.style.height = `${first.dataset.height}px`;
        place();
    }

    function place() {
        if (!viewer) return;
        const {one, other, cut} = viewer;
        const at = `translate(${left}px, ${top}px) scale(${scale})`;
        one.style.transform = at;
        // Of another size, the second one is shown as large as the first.
        other.style.width = one.style.width;
        other.style.height = one.style.height;
        other.style.transform = at;
        other.style.clipPath = `inset(0 0 0 ${cut.value}%)`;
    }

    function zoom(event) {
        event.preventDefault();
        const box = viewer.stage.getBoundingClientRect();
        const x = event.clientX - box.left;
        const y = event.clientY - box.top;
        const factor = Math.min(LARGEST / scale, Math.max(SMALLEST / scale, Math.exp(-event.deltaY / 400)));
        left = x - (x - left) * factor;
        top = y - (y - top) * factor;
        scale *= factor;
        place();
    }

    function flip() {
        if (!second) return;
        [first, second] = [second, first];
        set();
    }

    function move(across, down) {
        const [column, row, leaf, seed] = first.dataset.gridCell.split(",").map(Number);
        const next = first.closest("[data-grid]").querySelector(`[data-grid-cell="${[column + across, row + down, leaf, seed]}"]`);
        if (!next) return;
        first = next;
        set();
    }

    function key(event) {
        if (event.target === viewer.cut) return;
        const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
        if (!step && event.key !== " ") return;
        if (event.key === " " && event.target.tagName === "BUTTON" && !second) return;
        event.preventDefault();
        event.stopPropagation();
        if (step) move(...step);
        else flip();
    }

    // ---- The size of the cells

    function resize(grid, pixels) {
        grid.style.setProperty("--lora-trainer-cell", `${pixels}px`);
        const entry = grid.querySelector("[data-grid-size]");
        if (entry) entry.value = pixels;
    }

    function remembered() {
        return Number(localStorage.getItem(SIZE)) || 0;
    }

    window.loraTrainerGrid = {chosen};

    document.addEventListener("input", (event) => {
        const entry = inGrid(event, "[data-grid-size]");
        if (!entry) return;
        localStorage.setItem(SIZE, entry.value);
        resize(entry.closest("[data-grid]"), entry.value);
    });
    document.addEventListener("click", (event) => {
        const cell = inGrid(event, "[data-grid-cell]");
        if (cell) chosen(cell, event.shiftKey || picking);
    });
    new MutationObserver(() => {
        page().querySelectorAll("[data-grid]:not([data-sized])").forEach((grid) => {
            grid.dataset.sized = "1";
            const image = grid.querySelector("[data-grid-cell] img");
            const usual = image ? image.clientWidth : 0;
            if (remembered() || usual) resize(grid, remembered() || usual);
        });
    }).observe(document.documentElement, {childList: true, subtree: true});
})();
