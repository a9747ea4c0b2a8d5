// The dataset tools' own script: switches of duplicates, crops as boxes that are dragged and resized, and the mask editor.
// What a person changes is written into hidden fields of the panel; the server does the rest.
(function () {
    "use strict";

    if (window.loraTrainerTools) return;

    const LEAST = 16; // pixels of a crop's side
    const SIZES = [2, 200]; // pixels of the brush, from and to
    const STEPS = 40; // strokes that can be undone
    const NAMES = {"full_body": "full body", "cowboy_shot": "cowboy shot", "upper_body": "upper body"};

    const page = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const find = (selector) => page().querySelector(selector);
    const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

    function make(name, attributes, text) {
        const element = document.createElement(name);
        Object.entries(attributes || {}).forEach(([key, value]) => element.setAttribute(key, value));
        if (text) element.textContent = text;
        return element;
    }

    // What was changed in the preview, which the hidden field holds until the tool is applied or looks anew.
    const field = () => find("#lora_trainer_tools_adjusted textarea, #lora_trainer_tools_adjusted input");

    function adjusted() {
        const holder = field();
        return holder && holder.value ? JSON.parse(holder.value) : {};
    }

    function adjust(key, value) {
        const holder = field();
        if (!holder) return;
        holder.value = JSON.stringify(Object.assign(adjusted(), {[key]: value}));
        holder.dispatchEvent(new Event("input", {bubbles: true}));
    }

    // Duplicates

    function restoreSwitches(root) {
        const known = adjusted();
        root.querySelectorAll("input[data-copy]").forEach((input) => {
            if (input.dataset.copy in known) input.checked = known[input.dataset.copy];
            input.closest("figure").dataset.kept = input.checked ? "1" : "0";
        });
    }

    // Crops

    function boxesOf(figure) {
        return adjusted()[figure.dataset.number] || JSON.parse(figure.dataset.boxes);
    }

    function drawCropper(figure) {
        const ground = figure.querySelector(".lora-trainer-cropped");
        const row = figure.querySelector(".lora-trainer-framings");
        const boxes = boxesOf(figure);
        ground.querySelectorAll(".lora-trainer-crop").forEach((old) => old.remove());
        row.textContent = "";
        JSON.parse(figure.dataset.framings).forEach((framing) => {
            const name = NAMES[framing] || framing;
            const pressed = framing in boxes;
            const button = make("button", {type: "button", "data-framing": framing, "aria-pressed": pressed}, name);
            button.addEventListener("click", () => toggleCrop(figure, framing));
            row.append(button);
            if (!pressed) return;
            const help = `${name}: arrow keys move, shift and arrow keys resize, Delete removes`;
            const box = make("div", {class: "lora-trainer-crop", "data-framing": framing, tabindex: "0", role: "group", "aria-label": help});
            box.append(make("span", {}, name));
            ["nw", "ne", "sw", "se"].forEach((corner) => box.append(make("i", {"data-corner": corner})));
            box.addEventListener("pointerdown", (event) => dragCrop(event, figure, box));
            box.addEventListener("keydown", (event) => keyCrop(event, figure, box));
            ground.append(box);
            placeCrop(figure, box, boxes[framing]);
        });
    }

    function placeCrop(figure, box, numbers) {
        const [left, top, right, bottom] = numbers;
        const [width, height] = [Number(figure.dataset.width), Number(figure.dataset.height)];
        box.crop = numbers;
        box.style.left = `${(left / width) * 100}%`;
        box.style.top = `${(top / height) * 100}%`;
        box.style.width = `${((right - left) / width) * 100}%`;
        box.style.height = `${((bottom - top) / height) * 100}%`;
        const small = (right - left) * (bottom - top) < Number(figure.dataset.least);
        box.dataset.small = small ? "1" : "0";
        const name = NAMES[box.dataset.framing] || box.dataset.framing;
        box.querySelector("span").textContent = `${name} ${right - left}×${bottom - top}${small ? ", small" : ""}`;
    }

    function keepCrops(figure) {
        const boxes = {};
        figure.querySelectorAll(".lora-trainer-crop").forEach((box) => {
            boxes[box.dataset.framing] = box.crop;
        });
        adjust(figure.dataset.number, boxes);
    }

    function toggleCrop(figure, framing) {
        const boxes = Object.assign({}, boxesOf(figure));
        if (framing in boxes) delete boxes[framing];
        else {
            const [width, height] = [Number(figure.dataset.width), Number(figure.dataset.height)];
            boxes[framing] = [width / 4, height / 4, (width * 3) / 4, (height * 3) / 4].map(Math.round);
        }
        adjust(figure.dataset.number, boxes);
        drawCropper(figure);
        const chosen = figure.querySelector(`.lora-trainer-crop[data-framing="${framing}"]`);
        (chosen || figure.querySelector(`button[data-framing="${framing}"]`)).focus();
    }

    // A box moved, or one of its corners moved, by pixels of the whole picture; it stays inside.
    function moved(figure, numbers, corner, across, down) {
        let [left, top, right, bottom] = numbers;
        const [width, height] = [Number(figure.dataset.width), Number(figure.dataset.height)];
        if (!corner) {
            across = clamp(Math.round(across), -left, width - right);
            down = clamp(Math.round(down), -top, height - bottom);
            return [left + across, top + down, right + across, bottom + down];
        }
        if (corner.includes("w")) left = clamp(Math.round(left + across), 0, right - LEAST);
        if (corner.includes("e")) right = clamp(Math.round(right + across), left + LEAST, width);
        if (corner.includes("n")) top = clamp(Math.round(top + down), 0, bottom - LEAST);
        if (corner.includes("s")) bottom = clamp(Math.round(bottom + down), top + LEAST, height);
        return [left, top, right, bottom];
    }

    function dragCrop(event, figure, box) {
        if (event.button > 0) return;
        event.preventDefault();
        box.focus();
        const corner = event.target.dataset.corner || "";
        const start = box.crop;
        const scale = Number(figure.dataset.width) / figure.querySelector("img").getBoundingClientRect().width;
        box.setPointerCapture(event.pointerId);
        const follow = (next) => {
            const [across, down] = [(next.clientX - event.clientX) * scale, (next.clientY - event.clientY) * scale];
            placeCrop(figure, box, moved(figure, start, corner, across, down));
        };
        const end = () => {
            ["pointermove", "pointerup", "pointercancel"].forEach((name, place) => box.removeEventListener(name, place ? end : follow));
            keepCrops(figure);
        };
        box.addEventListener("pointermove", follow);
        box.addEventListener("pointerup", end);
        box.addEventListener("pointercancel", end);
    }

    function keyCrop(event, figure, box) {
        const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
        if (event.key === "Delete" || event.key === "Backspace") {
            event.preventDefault();
            toggleCrop(figure, box.dataset.framing);
        }
        if (!way) return;
        event.preventDefault();
        event.stopPropagation();
        const step = Math.max(1, Math.round(Number(figure.dataset.width) / 100)) * (event.ctrlKey ? 5 : 1);
        placeCrop(figure, box, moved(figure, box.crop, event.shiftKey ? "se" : "", way[0] * step, way[1] * step));
        keepCrops(figure);
    }

    // Masks: white is learned. The mask is a canvas of its own; the other one shows the picture under a veil.

    function load(address) {
        return new Promise((done) => {
            if (!address) return done(null);
            const image = new Image();
            image.onload = () => done(image);
            image.onerror = () => done(null);
            image.src = address;
        });
    }

    async function drawMasker(holder) {
        const [width, height] = [Number(holder.dataset.width), Number(holder.dataset.height)];
        const [image, before] = await Promise.all([load(holder.dataset.image), load(holder.dataset.mask)]);
        const canvas = () => Object.assign(document.createElement("canvas"), {width, height});
        const [view, mask, veil] = [canvas(), canvas(), canvas()];
        const ink = mask.getContext("2d", {willReadFrequently: true});
        ink.fillStyle = "#fff";
        ink.fillRect(0, 0, width, height);
        if (before) ink.drawImage(before, 0, 0, width, height);
        const editor = {holder, view, mask, veil, ink, image, width, height, history: [], tool: "erase", size: 40, opacity: 0.65, last: null};
        holder.editor = editor;
        holder.append(bar(editor), ground(editor));
        paint(editor);
    }

    function bar(editor) {
        const row = make("div", {class: "lora-trainer-masker-bar", role: "toolbar", "aria-label": "Mask tools"});
        const tools = [["brush", "Brush (learned)"], ["erase", "Erase (not learned)"]];
        tools.forEach(([name, text]) => {
            const button = make("button", {type: "button", "data-tool": name, "aria-pressed": name === editor.tool}, text);
            button.addEventListener("click", () => choose(editor, name));
            row.append(button);
        });
        const actions = [["all", "Fill all"], ["none", "Clear all"], ["holes", "Fill holes"], ["invert", "Invert"], ["undo", "Undo stroke"]];
        actions.forEach(([name, text]) => {
            const button = make("button", {type: "button", "data-action": name}, text);
            button.addEventListener("click", () => act(editor, name));
            row.append(button);
        });
        const size = make("input", {type: "range", min: SIZES[0], max: SIZES[1], value: editor.size, "data-name": "size"});
        size.addEventListener("input", () => { editor.size = Number(size.value); });
        const opacity = make("input", {type: "range", min: 10, max: 100, value: editor.opacity * 100, "data-name": "opacity"});
        opacity.addEventListener("input", () => { editor.opacity = Number(opacity.value) / 100; paint(editor); });
        [["Size", size], ["Veil", opacity]].forEach(([text, input]) => {
            const label = make("label", {}, text);
            label.append(input);
            row.append(label);
        });
        return row;
    }

    function ground(editor) {
        const {view} = editor;
        const box = make("div", {class: "lora-trainer-masker-ground"});
        const tip = make("div", {class: "lora-trainer-masker-tip", hidden: ""});
        view.tabIndex = 0;
        view.setAttribute("role", "img");
        view.setAttribute("aria-label", `Mask of ${editor.holder.dataset.name}: B brush, E erase, I invert, brackets change the size, Ctrl+Z undoes`);
        box.append(view, tip);
        const point = (event) => {
            const place = view.getBoundingClientRect();
            const scale = editor.width / place.width;
            const size = editor.size / scale;
            Object.assign(tip.style, {left: `${event.clientX - place.left}px`, top: `${event.clientY - place.top}px`, width: `${size}px`, height: `${size}px`});
            tip.hidden = false;
            return [(event.clientX - place.left) * scale, (event.clientY - place.top) * scale];
        };
        view.addEventListener("pointerdown", (event) => {
            if (event.button > 0) return;
            event.preventDefault();
            view.focus({preventScroll: true});
            view.setPointerCapture(event.pointerId);
            remember(editor);
            editor.last = point(event);
            stroke(editor, editor.last);
        });
        view.addEventListener("pointermove", (event) => {
            const places = (event.getCoalescedEvents ? event.getCoalescedEvents() : [event]).map(point);
            if (editor.last) (places.length ? places : [point(event)]).forEach((place) => stroke(editor, place));
            else point(event);
        });
        ["pointerup", "pointercancel"].forEach((name) => view.addEventListener(name, () => { editor.last = null; }));
        view.addEventListener("pointerleave", () => { tip.hidden = true; });
        view.addEventListener("keydown", (event) => keyMask(event, editor));
        return box;
    }

    function keyMask(event, editor) {
        const key = event.key.toLowerCase();
        if ((event.ctrlKey || event.metaKey) && key === "z") act(editor, "undo");
        else if (event.ctrlKey || event.metaKey || event.altKey) return;
        else if (key === "b") choose(editor, "brush");
        else if (key === "e") choose(editor, "erase");
        else if (key === "i") act(editor, "invert");
        else if (key === "[" || key === "]") {
            editor.size = clamp(editor.size + (key === "]" ? 5 : -5), SIZES[0], SIZES[1]);
            editor.holder.querySelector('[data-name="size"]').value = editor.size;
        } else return;
        event.preventDefault();
        event.stopPropagation();
    }

    function choose(editor, tool) {
        editor.tool = tool;
        editor.holder.querySelectorAll("[data-tool]").forEach((each) => each.setAttribute("aria-pressed", each.dataset.tool === tool));
    }

    function remember(editor) {
        editor.history.push(editor.ink.getImageData(0, 0, editor.width, editor.height));
        if (editor.history.length > STEPS) editor.history.shift();
    }

    function stroke(editor, place) {
        const {ink, last} = editor;
        ink.strokeStyle = ink.fillStyle = editor.tool === "brush" ? "#fff" : "#000";
        ink.lineWidth = editor.size;
        ink.lineCap = ink.lineJoin = "round";
        ink.beginPath();
        ink.moveTo(...last);
        ink.lineTo(place[0] + 0.01, place[1]); // a tap leaves a dot
        ink.stroke();
        editor.last = place;
        paint(editor);
    }

    function act(editor, name) {
        const {ink, width, height, history} = editor;
        if (name === "undo") {
            if (history.length) ink.putImageData(history.pop(), 0, 0);
        } else {
            remember(editor);
            const pixels = ink.getImageData(0, 0, width, height);
            const values = pixels.data;
            const outside = name === "holes" ? reachable(values, width, height) : null;
            for (let place = 0; place < values.length; place += 4) {
                let grey = values[place];
                if (name === "all") grey = 255;
                else if (name === "none") grey = 0;
                else if (name === "invert") grey = 255 - grey;
                else if (!outside[place / 4]) grey = 255;
                values[place] = values[place + 1] = values[place + 2] = grey;
                values[place + 3] = 255;
            }
            ink.putImageData(pixels, 0, 0);
        }
        paint(editor);
    }

    // Which dark pixels are connected with the border; the others that are dark are holes.
    function reachable(values, width, height) {
        const seen = new Uint8Array(width * height);
        const waiting = [];
        const visit = (place) => {
            if (!seen[place] && values[place * 4] < 230) {
                seen[place] = 1;
                waiting.push(place);
            }
        };
        for (let across = 0; across < width; across += 1) [across, (height - 1) * width + across].forEach(visit);
        for (let down = 0; down < height; down += 1) [down * width, down * width + width - 1].forEach(visit);
        while (waiting.length) {
            const place = waiting.pop();
            const across = place % width;
            if (across > 0) visit(place - 1);
            if (across < width - 1) visit(place + 1);
            if (place >= width) visit(place - width);
            if (place < width * (height - 1)) visit(place + width);
        }
        return seen;
    }

    function paint(editor) {
        const {view, veil, ink, image, width, height} = editor;
        const [over, shown] = [veil.getContext("2d"), view.getContext("2d")];
        const pixels = ink.getImageData(0, 0, width, height);
        const values = pixels.data;
        for (let place = 0; place < values.length; place += 4) {
            values[place + 3] = (255 - values[place]) * editor.opacity;
            [values[place], values[place + 1], values[place + 2]] = [255, 0, 255];
        }
        over.putImageData(pixels, 0, 0);
        shown.clearRect(0, 0, width, height);
        if (image) shown.drawImage(image, 0, 0, width, height);
        shown.drawImage(veil, 0, 0);
    }

    // The panel asks for its folders when it comes into sight, and when another project was opened.
    let asked = "";

    function look() {
        const fold = find("#lora_trainer_fold_tools");
        const state = find("#lora_trainer_state");
        const button = find("#lora_trainer_tools_look");
        if (!fold || !button || fold.offsetParent === null) return;
        const now = state ? `${state.dataset.project} ${state.dataset.dataset}` : "alone";
        if (now === asked) return;
        asked = now;
        button.click();
    }

    window.loraTrainerTools = {
        // The drawn mask as a PNG's address, for the event that saves it; "" without one.
        drawn: () => {
            const holder = find(".lora-trainer-masker");
            return holder && holder.editor ? holder.editor.mask.toDataURL("image/png") : "";
        },
    };

    function begin() {
        page().querySelectorAll(".lora-trainer-cropper:not([data-drawn])").forEach((figure) => {
            figure.dataset.drawn = "1";
            drawCropper(figure);
        });
        page().querySelectorAll(".lora-trainer-masker:not([data-drawn])").forEach((holder) => {
            holder.dataset.drawn = "1";
            drawMasker(holder);
        });
        page().querySelectorAll("input[data-copy]:not([data-drawn])").forEach((input) => {
            input.dataset.drawn = "1";
            restoreSwitches(input.closest(".lora-trainer-cluster"));
        });
    }

    // Opened anew: which folders there are may have changed.
    document.addEventListener("click", (event) => {
        if (event.target.closest && event.target.closest("#lora_trainer_fold_tools .lora-trainer-fold-head")) asked = "";
    });
    document.addEventListener("change", (event) => {
        const input = event.target.closest && event.target.closest("input[data-copy]");
        if (!input) return;
        adjust(input.dataset.copy, input.checked);
        input.closest("figure").dataset.kept = input.checked ? "1" : "0";
    });
    new MutationObserver(begin).observe(document.documentElement, {childList: true, subtree: true});
    setInterval(look, 500);
    begin();
})();
