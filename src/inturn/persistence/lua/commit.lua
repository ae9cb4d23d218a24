-- commit: save a session, append its new messages and remember the turn: all of it or nothing.
--
-- KEYS   1 session (hash)  2 messages (hash)  3 message IDs (hash)  4... the session's indexes (zsets)
-- ARGV   1 prefix  2 session's ttl ms  3 messages' ttl ms (0: for ever)  4 token of this commit
--        5 session ID  6 expected version  7 expected count  8 time of the change  9 row  10 new version
--        11 new count  12 turn's field, or '' for none  13 turn's record
--        14... for each message: user or '', time and ID, row
-- reply  { 'ok' }
--        { 'known', turn's record }     the turn was committed before
--        { 'refused', version, count }  these are the store's (nil: there is no such session)
--        { 'taken' }                    a message ID is in use
--
-- Invariants: nothing is written unless the reply is `ok`; the same token again is the same commit, so a call
-- whose answer was lost may be repeated. The messages of an expired session with the same ID stay: numbers go
-- on after them, and `base` says where this session begins.

local id, token, turn = ARGV[5], ARGV[4], ARGV[12]
local held = redis.call('HMGET', KEYS[1], 'token', 'version', 'count', 'at', 'indexes', turn)
if held[1] == token then
  return { 'ok' }
elseif turn ~= '' and held[6] then
  return { 'known', held[6] }
elseif (held[2] or '0') ~= ARGV[6] or (held[3] or '0') ~= ARGV[7] then
  return { 'refused', held[2], held[3] }
end
local new = {}
for i = 14, #ARGV, 3 do
  local message = string.sub(ARGV[i + 1], 27)
  local place = redis.call('HGET', KEYS[3], message)
  if new[message] or (place and id_is_taken(message, place)) then
    return { 'taken' }
  end
  new[message] = true
end

-- The first write is one that a full Redis refuses, before anything has changed.
redis.call('HSET', KEYS[1], 'row', ARGV[9], 'version', ARGV[10], 'count', ARGV[11], 'at', ARGV[8],
  'indexes', table.concat(KEYS, '\0', 4), 'token', token)
if turn ~= '' then
  redis.call('HSET', KEYS[1], turn, ARGV[13])
end
keep(KEYS[1], ARGV[2])

for _, index in ipairs(split(held[5])) do
  redis.call('ZREM', index, held[4] .. id)
end
for i = 4, #KEYS do
  local before = redis.call('PTTL', KEYS[i])
  redis.call('ZADD', KEYS[i], 0, ARGV[8] .. id)
  keep_index(KEYS[i], ARGV[2], before)
end

local bounds = redis.call('HMGET', KEYS[2], 'base', 'last', 'users')
local base = tonumber(held[2] and bounds[1] or bounds[2] or 0)
local number = base + tonumber(ARGV[7])
local users, named = split(bounds[3]), {}
for _, user in ipairs(users) do
  named[user] = {}
end
if #ARGV >= 14 then
  local before = redis.call('PTTL', KEYS[3])
  if not bounds[2] then
    redis.call('HSET', KEYS[2], 'first', string.format('%d', number + 1))
  end
  for i = 14, #ARGV, 3 do
    number = number + 1
    local field, user, name = string.format('%d', number), ARGV[i], ARGV[i + 1]
    redis.call('HSET', KEYS[2], field, user .. '\0' .. name .. '\0' .. ARGV[i + 2])
    redis.call('HSET', KEYS[3], string.sub(name, 27), id .. '\0' .. field)
    if user ~= '' then
      if not named[user] then
        users[#users + 1], named[user] = user, {}
      end
      table.insert(named[user], name .. '\0' .. id .. '\0' .. field)
    end
  end
  redis.call('HSET', KEYS[2], 'last', string.format('%d', number), 'users', table.concat(users, '\0'))
  keep_index(KEYS[3], ARGV[3], before)
end
if bounds[2] or #ARGV >= 14 then
  redis.call('HSET', KEYS[2], 'base', string.format('%d', base))
  keep(KEYS[2], ARGV[3])
  keep_index(KEYS[3], ARGV[3], redis.call('PTTL', KEYS[3]))
end
for _, user in ipairs(users) do
  local index = prefix .. 'user-messages:' .. user
  local before = redis.call('PTTL', index)
  for _, name in ipairs(named[user]) do
    redis.call('ZADD', index, 0, name)
  end
  keep_index(index, ARGV[3], before)
end

-- Whoever adds a name looks at three others: the share of names that lead nowhere stays below a third.
if ARGV[2] ~= '0' then
  for i = 4, #KEYS do
    for _, name in ipairs(redis.call('ZRANDMEMBER', KEYS[i], 3)) do
      if not session_named(KEYS[i], name) then
        redis.call('ZREM', KEYS[i], name)
      end
    end
  end
end
if ARGV[3] ~= '0' then
  for user, names in pairs(named) do
    local index = prefix .. 'user-messages:' .. user
    for _, name in ipairs(redis.call('ZRANDMEMBER', index, 3 * #names)) do
      if not message_named(user, name) then
        redis.call('ZREM', index, name)
      end
    end
  end
  local looked_at = redis.call('HRANDFIELD', KEYS[3], #ARGV - 13, 'WITHVALUES')
  for i = 1, #looked_at, 2 do
    if not id_is_taken(looked_at[i], looked_at[i + 1]) then
      redis.call('HDEL', KEYS[3], looked_at[i])
    end
  end
end
return { 'ok' }
