-- common: what the other scripts share; it stands before each of them.
--
-- ARGV[1] of every script is the prefix of all keys. The keys and what they hold are listed in
-- `inturn.persistence.redis_keys`; NUL separates the parts of a value, for no part may contain it.
--
-- Redis itself expires the two keys of a session. What may be left of it are its names in indexes, so a
-- name is only a claim: `session_named`, `message_named` and `id_is_taken` compare it with the session, and
-- what leads nowhere is dropped by whoever finds it.

local prefix = ARGV[1]

local function split(text)
  local parts = {}
  for part in string.gmatch((text or '') .. '\0', '([^%z]*)%z') do
    if part ~= '' then
      parts[#parts + 1] = part
    end
  end
  return parts
end

-- The row of the session that a name in an index stands for; nil if it is gone or has moved on.
local function session_named(index, name)
  local held = redis.call('HMGET', prefix .. 'session:' .. string.sub(name, 27), 'at', 'indexes', 'row')
  if held[1] == string.sub(name, 1, 26)
    and string.find('\0' .. held[2] .. '\0', '\0' .. index .. '\0', 1, true) then
    return held[3]
  end
end

-- The row of the message that a name in a user's index stands for; nil if it is gone.
local function message_named(user, name)
  local named, session, number = unpack(split(name))
  local stored = redis.call('HGET', prefix .. 'messages:' .. session, number)
  local head = user .. '\0' .. named .. '\0'
  if stored and string.sub(stored, 1, #head) == head then
    return string.sub(stored, #head + 1)
  end
end

-- Whether the message with this ID is still where it was written.
local function id_is_taken(id, place)
  local session, number = unpack(split(place))
  local stored = redis.call('HGET', prefix .. 'messages:' .. session, number)
  return stored and string.match(stored, '^[^%z]*%z([^%z]*)%z'):sub(27) == id
end

-- The stored messages from number `low` to number `high`, by a thousand in one command.
local function numbered(messages, low, high)
  local found = {}
  for start = low, high, 1000 do
    local fields = {}
    for number = start, math.min(start + 999, high) do
      fields[#fields + 1] = string.format('%d', number)
    end
    for _, stored in ipairs(redis.call('HMGET', messages, unpack(fields))) do
      if stored then
        found[#found + 1] = stored
      end
    end
  end
  return found
end

-- Renew the time to live of a session's own key: ms, or '0' for ever.
local function keep(key, ttl)
  if ttl == '0' then
    redis.call('PERSIST', key)
  else
    redis.call('PEXPIRE', key, ttl)
  end
end

-- Let an index live at least as long as what was just written to it, and a tenth longer, so that not every
-- use has to renew it. `before` is its PTTL before that: an index that holds a name for ever (-1) stays for
-- ever.
local function keep_index(index, ttl, before)
  if ttl == '0' then
    if before >= 0 then
      redis.call('PERSIST', index)
    end
  elseif before == -2 or (before >= 0 and before < tonumber(ttl)) then
    redis.call('PEXPIRE', index, string.format('%d', ttl * 1.1))
  end
end
