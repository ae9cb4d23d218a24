-- load: a session, its newest messages and one of its turns, in one step; the session counts as used.
--
-- KEYS   1 session (hash)  2 messages (hash)  3 message IDs (hash)
-- ARGV   1 prefix  2 session's ttl ms  3 messages' ttl ms (0: for ever)  4 messages wanted
--        5 turn's field, or '' for none
-- reply  nil where there is no session, else { row, turn's record or nil, { message, ... } oldest first }
--
-- Invariants: reads as many messages as are wanted, wherever they stand; all keys in which the session is
-- found live at least as long as itself.

local held = redis.call('HMGET', KEYS[1], 'row', 'count', 'indexes', ARGV[5])
if not held[1] then
  return false
end
local bounds = redis.call('HMGET', KEYS[2], 'base', 'first', 'last', 'users')

if ARGV[2] ~= '0' or redis.call('PTTL', KEYS[1]) >= 0 then
  keep(KEYS[1], ARGV[2])
  for _, index in ipairs(split(held[3])) do
    keep_index(index, ARGV[2], redis.call('PTTL', index))
  end
end
if bounds[3] and (ARGV[3] ~= '0' or redis.call('PTTL', KEYS[2]) >= 0) then
  keep(KEYS[2], ARGV[3])
  keep_index(KEYS[3], ARGV[3], redis.call('PTTL', KEYS[3]))
  for _, user in ipairs(split(bounds[4])) do
    local index = prefix .. 'user-messages:' .. user
    keep_index(index, ARGV[3], redis.call('PTTL', index))
  end
end

local messages = {}
if bounds[3] and ARGV[4] ~= '0' then
  local base, count = tonumber(bounds[1]), tonumber(held[2])
  local low = math.max(base + 1, tonumber(bounds[2]), base + count - tonumber(ARGV[4]) + 1)
  messages = numbered(KEYS[2], low, tonumber(bounds[3]))
end
return { held[1], held[4], messages }
