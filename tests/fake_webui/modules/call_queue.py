import threading

queue_lock = threading.Lock()  # the WebUI's is first come, first served; like it, this one is not reentrant
