"""Saves and loads models, for text and vision. A model with techniques names the plugins that it needs in its config.

- `techniques`: marks a model with its techniques, and restores techniques and weights, in either format
- `transformers_config`, `diffusers_config`: what the two libraries write to config.json in addition
- `transformers_models`, `diffusers_models`: load and save the models of the two libraries
- `adapters`: the files of a PEFT adapter next to its base model

Hosts import this package. It imports no host; functions that need one take it as an argument.
"""
