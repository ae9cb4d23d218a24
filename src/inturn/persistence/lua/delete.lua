-- delete: sessions with their messages and turns, and every name they have in an index.
--
-- ARGV   1 prefix  2... for each session: ID, and the version it must have, or '' for any
-- reply  { sessions looked at, { ID, ... } of those that are gone by this call }
--
-- Invariants: a session goes as a whole; one that has another version is left alone; without a version, the
-- messages that outlived their session go too. Redis answers nobody else meanwhile, so the call ends with the
-- session that makes it more than 2,000 messages, and the others are for the next.

local gone, looked_at, work = {}, 0, 0
for i = 2, #ARGV, 2 do
  if work > 2000 then
    break
  end
  looked_at = looked_at + 1
  local id, version = ARGV[i], ARGV[i + 1]
  local session, messages = prefix .. 'session:' .. id, prefix .. 'messages:' .. id
  local held = redis.call('HMGET', session, 'version', 'at', 'indexes')
  if version == '' or held[1] == version then
    for _, index in ipairs(split(held[3])) do
      redis.call('ZREM', index, held[2] .. id)
    end
    local bounds = redis.call('HMGET', messages, 'first', 'last')
    for start = tonumber(bounds[1] or 1), tonumber(bounds[2] or 0), 1000 do
      local ids, named = {}, {}
      for offset, stored in ipairs(numbered(messages, start, start + 999)) do
        local user, name = string.match(stored, '^([^%z]*)%z([^%z]*)%z')
        ids[#ids + 1] = string.sub(name, 27)
        if user ~= '' then
          named[user] = named[user] or {}
          table.insert(named[user], name .. '\0' .. id .. '\0' .. string.format('%d', start + offset - 1))
        end
      end
      work = work + #ids
      redis.call('HDEL', prefix .. 'message-ids', unpack(ids))
      for user, names in pairs(named) do
        redis.call('ZREM', prefix .. 'user-messages:' .. user, unpack(names))
      end
    end
    redis.call('UNLINK', session, messages)
    if held[1] then
      gone[#gone + 1] = id
    end
  end
end
return { looked_at, gone }
