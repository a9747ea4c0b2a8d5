unet_options = []
current_unet = None
