-- due: the sessions of one bucket for which somebody should have acted by now, longest overdue first.
--
-- KEYS   1 active (zset)
-- ARGV   1 the most to name
-- reply  session IDs

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
