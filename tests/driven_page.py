"""Gradio Blocks without a browser: events are run by the element that a person would press, and their answers kept."""

from __future__ import annotations

from typing import Any


class DrivenPage:
    """Blocks whose events a test runs. values: what components hold, by their number; what is not there is their own."""

    blocks: Any
    values: dict[int, Any]

    def component(self, name: str) -> Any:
        return next(c for c in self.blocks.blocks.values() if getattr(c, "elem_id", None) == f"lora_trainer_{name}")

    def put(self, **given: Any) -> None:
        """Put values into components by their names."""
        for key, value in given.items():
            self.values[self.component(key)._id] = value

    def do(self, name: str, trigger: str = "click", **given: Any) -> None:
        """Run the event of an element and every event that follows it, as the page would."""
        self.put(**given)
        element, dependencies = self.component(name), self.blocks.dependencies
        waiting = [
            i for i, each in enumerate(dependencies) if element._id in each["targets"] and each["trigger"] == trigger
        ][:1]
        assert waiting, f"nothing happens on {trigger} of {name}"
        while waiting:
            index = waiting.pop(0)
            self._run(index)
            waiting += [i for i, each in enumerate(dependencies) if each.get("trigger_after") == index]

    def _run(self, index: int) -> None:
        event, work = self.blocks.dependencies[index], self.blocks.fns[index].fn
        if work is None:
            return
        outputs = event["outputs"]
        got = work(*[self.value(number) for number in event["inputs"]])
        for answer in got if hasattr(got, "__next__") else [got]:
            updates = answer
            if not isinstance(answer, dict) or "__type__" in answer:
                several = answer if len(outputs) > 1 else [answer]
                updates = dict(zip([self.blocks.blocks[number] for number in outputs], several, strict=False))
            for component, update in updates.items():
                assert component._id in outputs, f"{getattr(component, 'elem_id', component)} is no output of its event"
                self._take(component, update)
            self.answered()

    def answered(self) -> None:
        """Called when an answer, or one of several, has been taken."""

    def _take(self, component: Any, update: Any) -> None:
        if isinstance(update, dict) and str(update.get("__type__")).endswith("update"):
            for key, value in update.items():
                if key == "value":
                    self.values[component._id] = value
                elif key != "__type__":
                    setattr(component, f"shown_{key}", value)
        else:
            self.values[component._id] = update

    def value(self, number: int) -> Any:
        return self.values.get(number, getattr(self.blocks.blocks[number], "value", None))

    def shown(self, name: str) -> Any:
        return self.value(self.component(name)._id)

    def of(self, name: str, about: str) -> Any:
        """Return what an update said about a component besides its value: its choices, whether it is visible."""
        return getattr(self.component(name), f"shown_{about}", None)
