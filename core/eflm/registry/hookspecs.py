"""What a manifest needs: the mark of its hooks. The hooks themselves follow from the table in `eflm.registry.kinds`.

A plugin module is a manifest: functions named as the hooks, marked `@eflm.hookimpl`, that return cards.
Implementations are in other modules and are imported when a run needs them.
"""

import pluggy

from eflm.registry.kinds import PROJECT

hookimpl = pluggy.HookimplMarker(PROJECT)
