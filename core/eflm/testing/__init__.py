"""Conformance suites for plugin authors: pytest classes that check what every plugin of a kind must do.

from eflm.testing.attention import AttentionConformance

class TestMyAttention(AttentionConformance):
    def build(self, geometry):
        return MyAttention(geometry, MyOptions())
"""
