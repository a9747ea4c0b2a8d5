import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from modules import devices

data_path = Path(tempfile.mkdtemp(prefix="fake-webui-"))
cmd_opts = SimpleNamespace(
    lowvram=False, medvram=False, no_prompt_history=False, lora_dir=str(data_path / "Lora"), freeze_settings=False
)
device = devices.device
loaded_hypernetworks = []


class Options:
    def __init__(self):
        self.data = {
            "sd_model_checkpoint": None,
            "sd_unet": "Automatic",
            "fp8_storage": "Disable",
            "live_previews_enable": True,
            "CLIP_stop_at_last_layers": 1,
            "upcast_attn": False,
            "tiling": False,
            "comma_padding_backtrack": 20,
            "emphasis": "Original",
            "persistent_cond_cache": True,
            "token_merging_ratio": 0,
        }

    def __getattr__(self, name):
        if name in self.__dict__.get("data", {}):
            return self.data[name]
        raise AttributeError(name)


class State:
    skipped = interrupted = stopping_generation = processing_has_refined_job_count = False
    job, job_timestamp = "", "0"
    job_no = job_count = sampling_step = sampling_steps = current_image_sampling_step = id_live_preview = 0
    current_latent = current_image = textinfo = time_start = None

    def begin(self, job="(unknown)"):
        self.job, self.job_no, self.job_count, self.sampling_step = job, 0, -1, 0
        self.time_start = time.time()
        self.current_latent = self.current_image = self.textinfo = None
        self.skipped = self.interrupted = self.stopping_generation = False

    def end(self):
        self.job, self.job_count = "", 0

    def interrupt(self):
        self.interrupted = True

    def nextjob(self):
        self.job_no += 1
        self.sampling_step = 0


opts = Options()
state = State()
