def visible_sampler_names():
    return ["Euler", "Euler a"]


def get_sampler_and_scheduler(sampler_name, scheduler_name, *, convert_automatic=True):
    for label in (" Karras", " Exponential"):
        if sampler_name.endswith(label):
            sampler_name, scheduler_name = sampler_name[: -len(label)], label.strip()
    known = visible_sampler_names()
    return (sampler_name if sampler_name in known else known[0]), scheduler_name
