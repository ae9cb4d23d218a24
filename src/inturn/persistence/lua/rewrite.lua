-- rewrite: other content in the places of a session, of its messages and of its turns.
--
-- KEYS   1 session (hash)  2 messages (hash)  3 message IDs (hash)
-- ARGV   1 prefix  2 session ID  3 version the session must have, or '' for none  4 session's row
--        5 number of messages  6... for each: ID, row; then for each turn: field, record
-- reply  how many there were to be changed
--
-- Invariants: what is not there is not made; no time to live and no index changes. The same again does the
-- same.

local done = 0
if ARGV[3] ~= '' and redis.call('HGET', KEYS[1], 'version') == ARGV[3] then
  redis.call('HSET', KEYS[1], 'row', ARGV[4])
  done = done + 1
end
local turns = 6 + 2 * tonumber(ARGV[5])
for i = 6, turns - 1, 2 do
  local place = redis.call('HGET', KEYS[3], ARGV[i])
  if place and id_is_taken(ARGV[i], place) then
    local session, number = unpack(split(place))
    if session == ARGV[2] then
      local head = string.match(redis.call('HGET', KEYS[2], number), '^[^%z]*%z[^%z]*%z')
      redis.call('HSET', KEYS[2], number, head .. ARGV[i + 1])
      done = done + 1
    end
  end
end
for i = turns, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    done = done + 1
  end
end
return done
