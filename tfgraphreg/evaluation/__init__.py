"""Numbers about what was learned: functions of arrays, which know no model."""
