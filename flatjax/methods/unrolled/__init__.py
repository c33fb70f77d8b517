"""Networks that are trained end to end: E2E-VarNet, MoDL, and the U-Net of one step."""
