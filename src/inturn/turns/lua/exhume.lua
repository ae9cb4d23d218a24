-- exhume: take letters out of the dead letters of their bucket.
--
-- KEYS   1 dead (zset)  2 facts (hash)  3 payloads (hash)
-- ARGV   the letters' names
-- reply  how many of them were there
--
-- Invariant: the three keys have the same names.

local there = 0
for _, name in ipairs(ARGV) do
  there = there + redis.call('ZREM', KEYS[1], name)
  redis.call('HDEL', KEYS[2], name)
  redis.call('HDEL', KEYS[3], name)
end
return there
