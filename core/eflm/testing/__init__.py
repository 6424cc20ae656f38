"""Conformance suites for plugin authors: what every plugin of a kind must keep, checked by calling it.

from eflm.testing.attention import AttentionConformance

class TestMyAttention(AttentionConformance):
    def build(self, geometry): return MyAttention(geometry, MyOptions())
"""
