"""The three stages of a run, the paper's three axes: pretrain, finetune, infer."""
