-- due: the sessions for which somebody should have acted by now, of one bucket or of several.
--
-- KEYS   1... active (zset), each of another bucket; any number
-- ARGV   1 the most to name of each bucket
-- reply  for each key, in their order, its session IDs, longest overdue first
--
-- Invariants: it changes nothing, so it may be repeated. All buckets are looked at with one clock, and none
-- waits for another: of each the same number is named, and who wants the rest asks again. So a call reads
-- no more than this number times its keys, however many sessions are due.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local due = {}
for place, index in ipairs(KEYS) do
  due[place] = redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, ARGV[1])
end
return due
