"""How the bundled weights were made: kept so that they can be made again, and of no use to the course.

python -m nic_helpers.training --recipe data/recipes/bundled.toml --data DIR --val DIR
"""
