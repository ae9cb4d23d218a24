-- find_messages: messages of one session by sequence.
--
-- KEYS   1 messages (hash)
-- ARGV   1 prefix  2 sequence to begin after  3 sequence to end before, or '' for none  4 newest or oldest
--        5 messages wanted
-- reply  { message, ... }
--
-- Invariant: reads as many messages as are wanted, wherever they stand.

local bounds = redis.call('HMGET', KEYS[1], 'base', 'first', 'last')
if not bounds[3] then
  return {}
end
local base, wanted = tonumber(bounds[1]), tonumber(ARGV[5])
local low = math.max(base + 1, tonumber(bounds[2]), base + tonumber(ARGV[2]) + 1)
local high = tonumber(bounds[3])
if ARGV[3] ~= '' then
  high = math.min(high, base + tonumber(ARGV[3]) - 1)
end
if ARGV[4] == 'oldest' then
  return numbered(KEYS[1], low, math.min(high, low + wanted - 1))
end
local found, reversed = numbered(KEYS[1], math.max(low, high - wanted + 1), high), {}
for i = #found, 1, -1 do
  reversed[#reversed + 1] = found[i]
end
return reversed
